// The server, as the page asks it: everything that can fail becomes an Error with one line for the user.

export async function ask(path, { token, ...options } = {}) {
  const headers = new Headers(options.headers);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => null);
  const error = new Error(problem?.detail ?? `The server answered ${answer.status}.`);
  throw Object.assign(error, { status: answer.status });
}

export async function models(token) {
  return (await (await ask("v1/models", { token })).json()).data;
}

// Start a job, and call `heard` with it at each change until it is over; with some changes comes a preview, if wanted.
// A server of several replicas has no jobs: there the whole is waited for, until `signal` aborts it.
export async function paint(fields, { token, heard, previews, signal }) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value !== null && value !== "") form.append(name, value);
  const begun = await ask("v1/jobs", { method: "POST", body: form, token }).then(
    (answer) => answer.json(),
    (error) => (error.status === 409 ? null : Promise.reject(error)),
  );
  if (!begun) {
    const all = ask("v1/inpaint", { method: "POST", body: form, token, signal });
    return all.then((answer) => answer.json()).catch((error) => (signal.aborted ? { state: "cancelled" } : Promise.reject(error)));
  }
  heard(begun);
  // by fetch, because an EventSource cannot bear a token
  const events = await ask(`v1/jobs/${begun.id}/events?previews=${Boolean(previews)}`, { token });
  let job = begun;
  let rest = "";
  const reader = events.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts.filter((text) => text.startsWith("data: "))) heard((job = JSON.parse(part.slice(6))));
  }
  if (job.state === "failed") throw new Error(job.error);
  return job;
}

export function cancel(id, token) {
  return ask(`v1/jobs/${id}`, { method: "DELETE", token });
}

export async function fetchResult(candidate, token) {
  if (candidate.b64) return new Blob([Uint8Array.from(atob(candidate.b64), (c) => c.charCodeAt(0))], { type: "image/png" });
  return (await ask(candidate.url.replace(/^\//, ""), { token })).blob();
}
