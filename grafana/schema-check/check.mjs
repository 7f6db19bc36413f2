// Type-checks each dashboard against @grafana/schema: the dashboard itself, and for each panel the options,
// field settings and queries of its plugin. A wrong name, a wrong value or a missing field is a type error.

import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const here = dirname(fileURLToPath(import.meta.url));
const dashboards = join(here, "..", "dashboards");
const composable = "@grafana/schema/dist/esm/raw/composable";
const plugins = {
  bargauge: ["bargauge", "BarGaugePanelCfg", false],
  stat: ["stat", "StatPanelCfg", false],
  table: ["table", "TablePanelCfg", true],
  text: ["text", "TextPanelCfg", false],
  timeseries: ["timeseries", "TimeSeriesPanelCfg", true],
};

const header = [
  'import type { Dashboard, Panel, RowPanel } from "@grafana/schema/dist/esm/raw/dashboard/x/Dashboard_types.gen";',
  'import type { DataQuery } from "@grafana/schema";',
  // The Prometheus plugin publishes its types with the plugin; these are the fields it documents.
  "interface PrometheusDataQuery extends DataQuery { editorMode?: 'code' | 'builder'; exemplar?: boolean; expr: string;",
  "  format?: 'time_series' | 'table' | 'heatmap'; instant?: boolean; legendFormat?: string; range?: boolean; }",
  ...Object.entries(plugins).map(
    ([kind, [folder, file]]) => `import type * as ${kind} from "${composable}/${folder}/panelcfg/x/${file}_types.gen";`,
  ),
  // JSON has texts where TypeScript has enumerations.
  "type Plain<T> = T extends string ? `${T}` : T extends (infer U)[] ? Plain<U>[]",
  "  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;",
  "",
].join("\n");

function source(dashboard) {
  const { panels, ...frame } = dashboard;
  const parts = [header, `export const frame: Plain<Omit<Dashboard, "panels">> = ${JSON.stringify(frame, null, 1)};`];
  for (const panel of panels) {
    const name = `panel${panel.id}`;
    if (panel.type === "row") {
      parts.push(`export const ${name}: Plain<RowPanel> = ${JSON.stringify(panel, null, 1)};`);
      continue;
    }
    const { options, targets, ...rest } = panel;
    const custom = rest.fieldConfig?.defaults?.custom;
    const [, , hasFieldConfig] = plugins[panel.type] ?? [];
    parts.push(`export const ${name}: Plain<Omit<Panel, "options" | "targets">> = ${JSON.stringify(rest, null, 1)};`);
    parts.push(`export const ${name}Options: Plain<Partial<${panel.type}.Options>> = ${JSON.stringify(options, null, 1)};`);
    if (targets !== undefined) {
      parts.push(`export const ${name}Targets: Plain<PrometheusDataQuery>[] = ${JSON.stringify(targets, null, 1)};`);
    }
    if (custom !== undefined && hasFieldConfig) {
      parts.push(`export const ${name}Custom: Plain<Partial<${panel.type}.FieldConfig>> = ${JSON.stringify(custom, null, 1)};`);
    }
  }
  return parts.join("\n");
}

const folder = mkdtempSync(join(here, ".generated-"));
try {
  const files = readdirSync(dashboards)
    .filter((name) => name.endsWith(".json"))
    .map((name) => {
      const path = join(folder, `${name}.ts`);
      writeFileSync(path, source(JSON.parse(readFileSync(join(dashboards, name), "utf8"))));
      return path;
    });
  const program = ts.createProgram(files, {
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    noEmit: true,
    skipLibCheck: true,
    strict: true,
    target: ts.ScriptTarget.ES2022,
    types: [],
  });
  const faults = ts.getPreEmitDiagnostics(program);
  for (const fault of faults.slice(0, 40)) {
    const text = ts.flattenDiagnosticMessageText(fault.messageText, "\n");
    const place = fault.file?.getLineAndCharacterOfPosition(fault.start ?? 0);
    console.error(`${fault.file?.fileName.split("/").pop()}:${(place?.line ?? 0) + 1}: ${text}`);
  }
  console.log(`${files.length} dashboards, ${faults.length} faults`);
  process.exitCode = faults.length > 0 || files.length === 0 ? 1 : 0;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
