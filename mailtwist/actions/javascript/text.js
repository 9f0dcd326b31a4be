// Functions that expressions may call beside those of the language.
(function () {
  "use strict";
  const root = globalThis;
  const encode64 = btoa, decode64 = atob;

  const octets = (text) => unescape(encodeURIComponent(String(text).toWellFormed()));

  // RFC 3629 §4; what is no UTF-8 becomes U+FFFD.
  const SEQUENCE = new RegExp(
    "[\\xc2-\\xdf][\\x80-\\xbf]|\\xe0[\\xa0-\\xbf][\\x80-\\xbf]|\\xed[\\x80-\\x9f][\\x80-\\xbf]|" +
    "[\\xe1-\\xef][\\x80-\\xbf]{2}|\\xf0[\\x90-\\xbf][\\x80-\\xbf]{2}|" +
    "\\xf4[\\x80-\\x8f][\\x80-\\xbf]{2}|[\\xf1-\\xf3][\\x80-\\xbf]{3}|[\\x80-\\xff]", "g");

  function text(binary) {
    return binary.replace(SEQUENCE, (found) =>
      found.length > 1 ? decodeURIComponent(escape(found)) : "\ufffd");
  }

  function bytes(value) {
    if (value instanceof Uint8Array) return value;
    const binary = octets(value);
    return Uint8Array.from(binary, (each) => each.charCodeAt(0));
  }

  function binary(value) {
    if (!(value instanceof Uint8Array)) return octets(value);
    let made = "";
    for (const each of value) made += String.fromCharCode(each);
    return made;
  }

  const hex = (value) =>
    Array.from(bytes(value), (each) => each.toString(16).padStart(2, "0")).join("");

  function unhex(digits) {
    if (!/^([0-9a-f]{2})*$/i.test(digits)) throw new TypeError("not hexadecimal");
    return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
  }

  const ToString = (value) => {
    if (value instanceof Uint8Array) return text(binary(value));
    return value !== null && typeof value === "object" ? JSON.stringify(value) : String(value);
  };

  function offer(functions) {
    for (const [name, value] of Object.entries(functions)) {
      Object.defineProperty(root, name, { value, writable: true, configurable: true });
    }
  }

  offer({
    atob: (value) => text(decode64(value)),
    btoa: (value) => encode64(binary(value)),
    ToString,
    ToJson: (value) => JSON.stringify(value),
    FromJson: (value) => JSON.parse(value),
    HexEncode: hex,
    HexDecode: unhex,
    Base64Encode: (value) => encode64(binary(value)),
    Base64Decode: (value) => Uint8Array.from(decode64(value), (each) => each.charCodeAt(0)),
  });
  return { bytes, hex, unhex, offer };
});
