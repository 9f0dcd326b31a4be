# syntax=docker/dockerfile:1
# The server in a container: docs/docker.md. Built from this repository and nothing else.

FROM python:3.13-slim-trixie AS build
WORKDIR /source
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY mailtwist mailtwist
COPY twisted twisted
# The last two lines write what the read-only image of later cannot: compiled modules, and the
# list of Twisted's plug-ins.
RUN python -m venv /opt/mailtwist \
    && /opt/mailtwist/bin/pip install --no-cache-dir --only-binary=:all: '.[postgresql,redis,ldap]' \
    && /opt/mailtwist/bin/python -m compileall -q /opt/mailtwist/lib \
    && /opt/mailtwist/bin/twistd --help >/dev/null

FROM python:3.13-slim-trixie
RUN groupadd --system --gid 10025 mailtwist \
    && useradd --system --uid 10025 --gid mailtwist --no-log-init \
        --home-dir /var/lib/mailtwist --shell /usr/sbin/nologin mailtwist \
    && install -d -o mailtwist -g mailtwist -m 0700 /var/lib/mailtwist \
    && install -d /app
COPY --from=build /opt/mailtwist /opt/mailtwist
# Ports that need no privileges: whoever runs the container maps 25 and the like to them.
ENV PATH=/opt/mailtwist/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    MAILTWIST_DATA_DIR=/var/lib/mailtwist \
    MAILTWIST_LISTENERS="smtp=:2525,submission=:2587,submissions=:2465,imap=:2143,imaps=:2993,http=:6336,https=:6443,http-redirect=:6080"
USER 10025:10025
# certs/fullchain.pem and certs/privkey.pem are looked for here.
WORKDIR /app
VOLUME /var/lib/mailtwist
EXPOSE 2525 2587 2465 2143 2993 6336 6443 6080
# Says no (503) when the store takes nothing.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client as web; link = web.HTTPConnection('127.0.0.1', 6336, timeout=4); link.request('GET', '/health'); raise SystemExit(link.getresponse().status != 200)"]
ENTRYPOINT ["mailtwist"]
CMD ["serve"]
