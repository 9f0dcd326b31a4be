// Hashes and chance, for expressions that name them. It gets what text.js gives back, and a
// secret in hexadecimal.
(function (tools, seed) {
  "use strict";
  const { bytes, hex, unhex, offer } = tools;

  // FIPS 180-4 §4.2.2, §5.3.3, §6.2.2: SHA-256, its constants from the first primes.
  const ROUND = [], START = [];
  const fraction = (number) => ((number - Math.floor(number)) * 4294967296) | 0;
  for (let number = 2; ROUND.length < 64; number++) {
    if (ROUND.length && isComposite(number)) continue;
    if (START.length < 8) START.push(fraction(Math.sqrt(number)));
    ROUND.push(fraction(Math.cbrt(number)));
  }

  function isComposite(number) {
    for (let factor = 2; factor * factor <= number; factor++) if (number % factor === 0) return true;
    return false;
  }

  function sha256(value) {
    const given = bytes(value);
    const padded = new Uint8Array((((given.length + 8) >> 6) + 1) << 6);
    padded.set(given);
    padded[given.length] = 0x80;
    const view = new DataView(padded.buffer);
    view.setUint32(padded.length - 8, Math.floor(given.length / 536870912));
    view.setUint32(padded.length - 4, given.length << 3);
    const state = Int32Array.from(START);
    for (let at = 0; at < padded.length; at += 64) compress(state, view, at);
    const digest = new DataView(new ArrayBuffer(32));
    state.forEach((word, index) => digest.setInt32(index * 4, word));
    return new Uint8Array(digest.buffer);
  }

  const schedule = new Int32Array(64);
  const turned = (word, by) => (word >>> by) | (word << (32 - by));

  function compress(state, view, at) {
    for (let i = 0; i < 16; i++) schedule[i] = view.getInt32(at + i * 4);
    for (let i = 16; i < 64; i++) {
      const x = schedule[i - 15], y = schedule[i - 2];
      const s0 = turned(x, 7) ^ turned(x, 18) ^ (x >>> 3);
      const s1 = turned(y, 17) ^ turned(y, 19) ^ (y >>> 10);
      schedule[i] = (schedule[i - 16] + s0 + schedule[i - 7] + s1) | 0;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      const s1 = turned(e, 6) ^ turned(e, 11) ^ turned(e, 25);
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + ROUND[i] + schedule[i]) | 0;
      const s0 = turned(a, 2) ^ turned(a, 13) ^ turned(a, 22);
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + t1) | 0;
      d = c; c = b; b = a; a = (t1 + t2) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((word, index) => { state[index] = (state[index] + word) | 0; });
  }

  const joined = (first, second) => {
    const whole = new Uint8Array(first.length + second.length);
    whole.set(first);
    whole.set(second, first.length);
    return whole;
  };

  // RFC 2104 §2
  function hmac(key, value) {
    const long = bytes(key);
    const block = new Uint8Array(64);
    block.set(long.length > 64 ? sha256(long) : long);
    const inner = sha256(joined(block.map((each) => each ^ 0x36), bytes(value)));
    return sha256(joined(block.map((each) => each ^ 0x5c), inner));
  }

  // Chance: a hash over a secret from the operating system and a counter.
  const secret = unhex(seed);
  let turns = 0;
  const chance = () => sha256(joined(secret, bytes(turns++)));

  function uuid() {
    const made = chance().slice(0, 16);
    made[6] = (made[6] & 0x0f) | 0x40; // RFC 9562 §5.4
    made[8] = (made[8] & 0x3f) | 0x80;
    return hex(made).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  }

  function random() {
    const view = new DataView(chance().buffer);
    return (view.getUint32(0) * 2097152 + (view.getUint32(4) >>> 11)) / 9007199254740992;
  }

  offer({
    uuid,
    sha256: (value) => hex(sha256(value)),
    hmac: (key, value) => hex(hmac(key, value)),
    SHA256Hash: sha256,
    HMACSHA256: hmac,
  });
  Math.random = random;
});
