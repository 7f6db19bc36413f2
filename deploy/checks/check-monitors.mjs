// Reads objects of monitoring.coreos.com/v1 as JSON, one per line, and checks each by the schema that the
// Prometheus operator publishes. Prints what is wrong and exits 1, or prints how many were checked.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { monitoringCoreosCom } = createRequire(import.meta.url)("@kubernetes-models/prometheus-operator");
const kinds = monitoringCoreosCom.v1;
let checked = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const document = JSON.parse(line);
  const Kind = kinds[document.kind];
  if (Kind === undefined) throw new Error(`no schema of ${document.kind}`);
  const known = new Set(["apiVersion", "kind", "metadata", "spec"]);
  const surplus = Object.keys(document).filter((name) => !known.has(name));
  if (surplus.length > 0) throw new Error(`unknown: ${surplus}`);
  new Kind(document).validate();
  checked += 1;
}
console.log(`${checked} checked`);
