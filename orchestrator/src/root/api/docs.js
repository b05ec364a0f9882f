"use strict";
// Makes the list of operations one that can be tried. The token stays in this page's memory.
let token = "";
const description = fetch("/docs/openapi.json").then((answer) => answer.json());

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function resolve(all, schema) {
  while (schema && schema.$ref) schema = schema.$ref.slice(2).split("/").reduce((at, key) => at[key], all);
  return schema || {};
}

// A value of the schema, to begin with.
function example(all, schema, depth = 0) {
  schema = resolve(all, schema);
  if (schema.example !== undefined) return schema.example;
  if (schema.oneOf) return example(all, schema.oneOf.at(-1), depth + 1);
  const type = [].concat(schema.type || "object").find((one) => one !== "null");
  if (type === "object") {
    const keys = Object.entries(schema.properties || {});
    return Object.fromEntries(keys.map(([key, value]) => [key, depth > 6 ? null : example(all, value, depth + 1)]));
  }
  if (type === "array") return depth > 6 ? [] : [example(all, schema.items, depth + 1)];
  if (schema.enum) return schema.enum[0];
  return { string: "", boolean: false, integer: 0, number: 0 }[type];
}

async function send(method, path, body) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body });
  const text = await answer.text();
  let value;
  try { value = JSON.parse(text); } catch { value = text; }
  return { status: `${answer.status} ${answer.statusText}`, ok: answer.ok, value };
}

const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

function tryable(details, all) {
  const { method, path } = details.dataset;
  const operation = all.paths[path][method.toLowerCase()];
  const inputs = (operation.parameters || []).map((parameter) => make("input", { name: parameter.name, required: true }));
  const schema = operation.requestBody && operation.requestBody.content["application/json"].schema;
  const body = schema && make("textarea", { value: JSON.stringify(example(all, schema), null, 2), spellcheck: false });
  const result = make("pre", { hidden: true });
  const form = make("form", {}, ...inputs.map((input) => make("label", {}, `${input.name} `, input)));
  if (body) form.append(body);
  form.append(make("button", { textContent: "Send" }), result);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const target = inputs.reduce((at, input) => at.replace(`{${input.name}}`, encodeURIComponent(input.value)), path);
    result.hidden = false;
    try {
      const { status, value } = await send(method, target, body && body.value);
      result.textContent = `${status}\n${shown(value)}`;
    } catch (error) {
      result.textContent = String(error);
    }
  });
  details.append(form);
}

for (const details of document.querySelectorAll("details")) {
  details.addEventListener("toggle", async () => tryable(details, await description), { once: true });
}

const login = document.getElementById("login");
login.hidden = false;
login.addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = JSON.stringify(Object.fromEntries(new FormData(login)));
  const { ok, value } = await send("POST", "/api/auth/login", body);
  token = ok ? value.token : "";
  login.querySelector("output").textContent = ok ? "Logged in for ten minutes." : value.message;
});
