// The description of the API as a page, made from openapi.json.

function made(tag, text, ...children) {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  element.append(...children);
  return element;
}

// What a field may be, in few words.
function kind(field) {
  if (field.anyOf) return field.anyOf.map(kind).join(" or ");
  if (field.enum) return field.enum.map((value) => JSON.stringify(value)).join(", ");
  if (field.const !== undefined) return JSON.stringify(field.const);
  const bounds = [["minimum", "≥"], ["exclusiveMinimum", ">"], ["maximum", "≤"], ["exclusiveMaximum", "<"]];
  return [field.format ?? field.type ?? "", ...bounds.filter(([name]) => name in field).map(([name, sign]) => `${sign} ${field[name]}`)].join(" ");
}

function fields(schema, all) {
  const { properties = {}, required = [] } = schema.$ref ? all[schema.$ref.split("/").pop()] : schema;
  const rows = Object.entries(properties).map(([name, field]) => {
    const more = [kind(field), field.description, required.includes(name) ? "required" : ""].filter(Boolean);
    return made("tr", "", made("td", "", made("code", name)), made("td", more.join("; ")));
  });
  return made("table", "", made("tbody", "", ...rows));
}

function route(path, method, about, all) {
  const section = made("section", "", made("h2", "", made("code", `${method.toUpperCase()} ${path}`)));
  for (const line of (about.description ?? about.summary ?? "").split("\n\n")) section.append(made("p", line));
  for (const [type, { schema }] of Object.entries(about.requestBody?.content ?? {})) {
    section.append(made("details", "", made("summary", type), fields(schema, all)));
  }
  return section;
}

try {
  const answer = await fetch("openapi.json");
  const { paths, components } = await answer.json();
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, about] of Object.entries(methods)) {
      document.getElementById("routes").append(route(path, method, about, components?.schemas ?? {}));
    }
  }
} catch (error) {
  document.getElementById("message").textContent = `The description cannot be shown: ${error.message}`;
}
