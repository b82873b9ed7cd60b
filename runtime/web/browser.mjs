// Runs a script in headless Chromium: node browser.mjs PLAYWRIGHT CHROMIUM URL < {"files": {name: base64}, "script": "..."}
//
// The script is the body of an async function of (dlf, files, b64); dlf is dlf.js, files are Uint8Arrays. Prints what it returns, in
// JSON. `residentMemory()`, which it may call, is the memory in bytes of the processes that run pages, as Linux counts it, without
// what the page itself has dropped.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [playwright, executablePath, url] = process.argv.slice(2);
const { chromium } = (await import(pathToFileURL(`${playwright}/index.js`))).default;
const { files, script, view = {}, shot, flags = [] } = JSON.parse(readFileSync(0, "utf8"));
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", ...flags] });
try {
  const page = await (await browser.newContext(view)).newPage();
  page.on("pageerror", (error) => console.error(`page: ${error}`));
  const session = await browser.newBrowserCDPSession();
  const residentMemory = async () => {
    await (await page.context().newCDPSession(page)).send("HeapProfiler.collectGarbage");
    const { processInfo } = await session.send("SystemInfo.getProcessInfo");
    const kilobytes = ({ id }) => Number(/VmRSS:\s*(\d+)/.exec(readFileSync(`/proc/${id}/status`, "utf8"))[1]);
    return processInfo.filter(({ type }) => type === "renderer").reduce((sum, each) => sum + 1024 * kilobytes(each), 0);
  };
  await page.exposeFunction("residentMemory", residentMemory);
  page.setDefaultTimeout(60_000);
  await page.goto(url);
  const result = await page.evaluate(async ([files, script]) => {
    const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const b64 = (array) => {
      const raw = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
      let text = "";
      for (let i = 0; i < raw.length; i += 32768) text += String.fromCharCode(...raw.subarray(i, i + 32768));
      return btoa(text);
    };
    const AsyncFunction = (async () => {}).constructor;
    const dlf = await import(new URL("dlf/dlf.js", location.href));
    const given = Object.fromEntries(Object.entries(files).map(([name, text]) => [name, bytes(text)]));
    return new AsyncFunction("dlf", "files", "b64", script)(dlf, given, b64);
  }, [files, script]);
  if (shot) await page.screenshot({ path: shot, fullPage: true });
  process.stdout.write(JSON.stringify(result ?? null));
} finally {
  await browser.close();
}
