import { NEXT_PHASES, type Phase } from '#agent/replication/session/phases.ts'
import { SELDOM } from './seldom.ts'

/* Prints docs/architecture/session-phases.md from the table that the session obeys (it asserts each move against it). `npm run docs`
 * writes the page, a test fails when it is stale. */

/** The whole page, ready to be written. */
export function phasesPage(): string {
  const phases = Object.keys(NEXT_PHASES) as Phase[]
  const head = `| from \\ to | ${phases.join(' | ')} |`
  const rule = `|---|${phases.map(() => ':-:').join('|')}|`
  const rows = phases.map((from) => {
    const cells = phases.map((to) => cell(from, to))
    return `| **${from}** | ${cells.join(' | ')} |`
  })
  const seldom = Object.entries(SELDOM)
    .filter(([name]) => name.startsWith('phase '))
    .map(([name, needs]) => `| ${name.slice('phase '.length).replace('>', ' → ')} | ${needs} |`)
    .sort()
  return `# Phases of a session

Printed by \`npm run docs\` from \`src/agent/replication/session/phases.ts\`; a test compares the two. What the phases mean is on [replication.md](replication.md). A session
asserts every move against this table, so a move that is not in it stops the process instead of being made.

● a campaign of the simulator fails unless it happened · ○ needs several rare things at once: counted, not demanded

${head}
${rule}
${rows.join('\n')}

## The rare moves

| Move | What it needs |
|---|---|
${seldom.join('\n')}
`
}

function cell(from: Phase, to: Phase): string {
  if (!NEXT_PHASES[from].includes(to)) return ''
  return `phase ${from}>${to}` in SELDOM ? '○' : '●'
}
