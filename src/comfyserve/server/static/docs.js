// Shows this server's own OpenAPI document; nothing is fetched from anywhere else.
// Where the server asks for keys, so does the page. A key stays in this page's memory and goes
// to this server alone, in a header.

const ask = document.getElementById("ask");
const field = document.getElementById("key");
const refusal = document.getElementById("refusal");
let key = "";

function withKey(request) {
  const isOurs = new URL(request.url, location.href).origin === location.origin;
  if (key && isOurs) {
    request.headers = { ...request.headers, Authorization: `Bearer ${key}` };
  }
  return request;
}

async function load() {
  const { url, headers } = withKey({ url: "openapi.json", headers: {} });
  const answer = await fetch(url, { headers });
  const told = await answer.json();
  ask.hidden = answer.ok;
  if (answer.ok) {
    show(told);
  } else {
    refusal.textContent = told.error.message;
    field.focus();
  }
}

function show(spec) {
  SwaggerUIBundle({
    spec,
    dom_id: "#api",
    deepLinking: true,
    displayRequestDuration: true,
    tryItOutEnabled: true,
    validatorUrl: null,
    requestInterceptor: withKey,
  });
}

ask.addEventListener("submit", (event) => {
  event.preventDefault();
  key = field.value.trim();
  load();
});

load();
