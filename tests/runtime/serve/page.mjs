// Drops files on the page of dlf serve: node page.mjs PLAYWRIGHT CHROMIUM URL < [{"name": "a.png", "data": base64}, ...]
//
// Prints what the page shows after each, in JSON: the status, its class, and of each picture the size and the caption.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [playwright, executablePath, url] = process.argv.slice(2);
const { chromium } = (await import(pathToFileURL(`${playwright}/index.js`))).default;
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.error(`page: ${error}`));
  page.on("console", (message) => message.type() === "error" && console.error(`console: ${message.text()}`));
  page.setDefaultTimeout(60_000);
  await page.goto(url);
  const shown = [];
  for (const file of JSON.parse(readFileSync(0, "utf8"))) {
    const transfer = await page.evaluateHandle(({ name, data }) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name));
      return transfer;
    }, file);
    await page.dispatchEvent("#drop", "drop", { dataTransfer: transfer });
    await page.waitForFunction(() => !["", "…"].includes(document.querySelector("#status").textContent));
    const view = await page.evaluate(async () => {
      const status = document.querySelector("#status");
      const pictures = [...document.querySelectorAll("img[src]")];
      await Promise.all(pictures.map((picture) => picture.decode()));
      return {
        status: status.textContent,
        kind: status.className,
        pictures: pictures.map((each) => [each.naturalWidth, each.naturalHeight, each.nextElementSibling.textContent]),
        footer: document.querySelector("footer").textContent,
      };
    });
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save")]);
    shown.push({ ...view, name: download.suggestedFilename(), saved: readFileSync(await download.path(), "base64") });
  }
  process.stdout.write(JSON.stringify(shown));
} finally {
  await browser.close();
}
