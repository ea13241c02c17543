// What the server is asked; every refusal becomes an Error with the server's sentence.

async function answer(response) {
  const kind = response.headers.get("content-type") ?? "";
  const body = kind.includes("json") ? await response.json() : await response.text();
  if (response.ok) return body;
  const detail = body?.detail;
  const sentence = Array.isArray(detail) ? detail.map((each) => `${each.loc?.at(-1)}: ${each.msg}`).join("; ") : detail;
  throw Object.assign(new Error(sentence || `the server answered ${response.status}`), { status: response.status });
}

export const get = async (path, signal) => answer(await fetch(`/api/${path}`, { signal }));

export const post = async (path, body, signal) =>
  answer(await fetch(`/api/${path}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal }));

export const send = async (file, title) =>
  answer(await fetch(`/api/pictures?title=${encodeURIComponent(title)}`, { method: "POST", headers: { "content-type": "application/octet-stream" }, body: file }));

export const fragment = async (key) => answer(await fetch(`/api/results/${key}/result.html`));

export const floats = async (path) => {
  const response = await fetch(`/api/${path}`);
  if (!response.ok) return answer(response);
  return new Float32Array(await response.arrayBuffer());
};

const remembered = new Map();
/** What does not change while the server runs. */
export function once(path) {
  if (!remembered.has(path)) {
    const asked = get(path);
    asked.catch(() => remembered.delete(path));
    remembered.set(path, asked);
  }
  return remembered.get(path);
}
