/**
 * Torture of the whole system on real processes:
 *
 *     npm run torture                          one round of each kind of fault, another seed each time
 *     npm run torture -- --seed S              the same again
 *     npm run torture -- --seed S --from R --rounds 1
 *     npm run torture -- --minutes 30 [--json]
 *     npm run torture -- --power               on disks that forget what was not synced when the power goes
 *
 * Exit code 0: everything held. 1: a violation. 2: wrong arguments. 3: it cannot run here.
 */
import { parseArgs } from 'node:util'
import { systemClock } from '#base/system/clock.ts'
import { runCampaign } from './campaign.ts'
import { whyNot } from './needs.ts'
import { reportLines } from './report.ts'
import { FAULT_KINDS, type FaultKind, POWER_KINDS } from './schedule.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    minutes: { type: 'string' },
    rounds: { type: 'string' },
    from: { type: 'string', default: '0' },
    kinds: { type: 'string' },
    'long-ms': { type: 'string', default: '8000' },
    volumes: { type: 'string', default: '3' },
    chains: { type: 'string', default: '8' },
    json: { type: 'boolean', default: false },
    power: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
    quiet: { type: 'boolean', default: false },
  },
})

function wrong(text: string): never {
  process.stderr.write(`${text}\n`)
  process.exit(2)
}

function wholeNumber(name: string, text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < 0)
    wrong(`--${name} ${text}: accepted is a whole number`)
  return value
}

function kindsOf(text: string | undefined): readonly FaultKind[] {
  if (text === undefined) return values.power ? POWER_KINDS : FAULT_KINDS
  return text.split(',').map((name) => {
    const known = values.power ? [...FAULT_KINDS, 'power' as const] : FAULT_KINDS
    const kind = known.find((one) => one === name)
    return kind ?? wrong(`--kinds ${name}: accepted are ${known.join(', ')}`)
  })
}

const reason = await whyNot()
if (reason !== undefined) {
  process.stderr.write(`torture does not run here: ${reason}\n`)
  process.exit(3)
}

const kinds = kindsOf(values.kinds)
const seed =
  values.seed === undefined
    ? Math.floor(Math.random() * 1_000_000)
    : wholeNumber('seed', values.seed)
const minutes = values.minutes === undefined ? undefined : Number(values.minutes)
const interrupted = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    // Once: the round is broken off and everything put away. Twice: at once, and the janitor puts it away.
    if (interrupted.signal.aborted) process.exit(130)
    interrupted.abort()
  })
}

const report = await runCampaign({
  clock: systemClock,
  seed,
  from: wholeNumber('from', values.from),
  rounds:
    values.rounds !== undefined
      ? wholeNumber('rounds', values.rounds)
      : minutes === undefined
        ? kinds.length
        : undefined,
  limitMs: minutes === undefined ? Number.POSITIVE_INFINITY : minutes * 60_000,
  kinds,
  longMs: wholeNumber('long-ms', values['long-ms']),
  volumes: wholeNumber('volumes', values.volumes),
  chains: wholeNumber('chains', values.chains),
  thinkMs: 8,
  disks: values.power ? 'power' : 'small',
  keep: values.keep,
  say: (line) => {
    if (!values.quiet && !values.json) process.stdout.write(`${line}\n`)
  },
  signal: interrupted.signal,
})
process.stdout.write(
  values.json ? `${JSON.stringify(report)}\n` : `\n${reportLines(report).join('\n')}\n`,
)
process.exit(interrupted.signal.aborted ? 130 : report.violations.length > 0 ? 1 : 0)
