/** Rewrites the pages that are made from the code: `npm run docs`. Tests fail when one of them is stale. */
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import { agentOptions } from '../src/agent/config.ts'
import { optionsPage } from '../src/cli/options-page.ts'
import { controlOptions } from '../src/control/config.ts'
import { ownershipPage } from '../sim/ownership-page.ts'
import { phasesPage } from '../sim/phases-page.ts'

interface Entry {
  code: string
  retry: string
  text: string
  hint: string
  from: string
}

const isFaultKind = (value: unknown): value is Omit<Entry, 'from'> =>
  typeof value === 'object' &&
  value !== null &&
  'code' in value &&
  'hint' in value &&
  'retry' in value

const entries: Entry[] = []
for (const path of globSync('src/**/*.ts').sort()) {
  if (/\.(test|contract)\.ts$/.test(path)) continue
  if (!/= fault\(\{/.test(readFileSync(path, 'utf8'))) continue
  const module: Record<string, unknown> = await import(pathToFileURL(path).href)
  for (const value of Object.values(module)) {
    if (isFaultKind(value)) entries.push({ ...value, from: relative('.', path) })
  }
}
entries.sort((a, b) => (a.code < b.code ? -1 : 1))

const rows = entries.map((e) => `| \`${e.code}\` | ${e.text} | ${e.hint} | ${e.retry} |`)
writeFileSync(
  'docs/errors.md',
  `# Error codes

Every fault of the product's own catalogue: what happened, what to do, and whether repeating the same call can help. The codes of the
public APIs are on the pages in \`docs/compatibility\`. This page is written by \`npm run docs\`.

| Code | What happened | What to do | Repeat |
|---|---|---|---|
${rows.join('\n')}
`,
)

writeFileSync('docs/formats/ownership-record.md', ownershipPage())
writeFileSync('docs/architecture/session-phases.md', phasesPage())
writeFileSync(
  'docs/operating/configuration.md',
  optionsPage([
    {
      command: 'holdfast control',
      about: 'The control plane of one region.',
      options: controlOptions,
    },
    { command: 'holdfast agent', about: 'The agent of one site.', options: agentOptions },
  ]),
)
