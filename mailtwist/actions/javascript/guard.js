// The first thing that runs in a fresh engine. It shuts the doors that lead out of an
// expression, defines the names of the scope, and gives back the one function that
// evaluates. What it needs of the language it holds in constants: expressions may change
// the globals and prototypes of their own engine as they like.
(function (scopeText, largest) {
  "use strict";
  const root = globalThis;
  const { InternalError, Promise, RangeError, ReferenceError, Uint8Array } = root;
  const { parse, stringify } = JSON;
  const { defineProperty, getPrototypeOf, keys } = Object;
  const { call } = Function.prototype;
  const slice = call.bind(String.prototype.slice);
  const wellFormed = call.bind(String.prototype.toWellFormed);
  const base64 = btoa;

  // What was reached for; to catch the error that followed does not help.
  let touched = "";

  function forbid(holder, key, name) {
    const refuse = () => {
      touched = touched || name;
      throw new ReferenceError(`${name} is not allowed`);
    };
    defineProperty(holder, key, { get: refuse, set: refuse, configurable: false });
  }

  for (const name of ["eval", "Function", "globalThis"]) forbid(root, name, name);
  for (const each of [() => {}, function* () {}, async () => {}, async function* () {}]) {
    forbid(getPrototypeOf(each), "constructor", "the constructor of functions");
  }

  const scope = parse(scopeText);
  for (const name of keys(scope)) {
    try {
      const value = scope[name];
      defineProperty(root, name, { value, writable: true, configurable: true, enumerable: true });
    } catch {
      // undefined, NaN, Infinity and what is forbidden keep their meaning.
    }
  }

  class Unusable extends RangeError {}

  function plain(key, value) {
    if (typeof value === "function") throw new Unusable("the result is a function");
    if (typeof value === "symbol") throw new Unusable("the result is a symbol");
    if (typeof value === "bigint") throw new Unusable("the result is a BigInt");
    if (value instanceof Promise) throw new Unusable("the result is a promise");
    if (value instanceof Uint8Array) return base64(value);
    return value;
  }

  function described(error) {
    try {
      if (error instanceof Unusable) return `!${error.message}`;
      const text = slice(wellFormed(`${error.name}: ${error.message}`), 0, 200);
      const isLimit = error instanceof InternalError || (error instanceof RangeError && /stack/.test(text));
      return (isLimit ? "!" : "?") + text;
    } catch {
      // Without memory the engine throws null.
      return "!out of memory, or an error that says nothing";
    }
  }

  // The answer is "=" and JSON, or "?" and a mistake's text, or "!" and that of a bound.
  function evaluated(expression) {
    let text;
    try {
      text = stringify(expression(), plain);
    } catch (error) {
      return touched ? `!${touched} is not allowed` : described(error);
    }
    if (touched) return `!${touched} is not allowed`;
    if (text === undefined) return "=null";
    return text.length > largest ? "!the result is too large" : `=${text}`;
  }

  return evaluated;
});
