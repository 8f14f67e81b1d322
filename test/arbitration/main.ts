/**
 * Tries the rows of docs/operating/arbitration.md with real processes and cut networks:
 *
 *     npm run arbitration                                all rows
 *     npm run arbitration -- --row 6 --row 25            some of them
 *     npm run arbitration -- --lease-ms 8000 --silence-ms 4000
 *     npm run arbitration -- --list                      the table, without trying it
 *
 * Exit code 0: every row held. 1: one did not. 2: wrong arguments. 3: it cannot run here.
 */
import { parseArgs } from 'node:util'
import { systemClock } from '#base/system/clock.ts'
import { TIMING } from '../torture/lab/lab.ts'
import { whyNot } from '../torture/needs.ts'
import { ROWS, tableOf, tellRow } from './rows.ts'
import { Stage } from './stage.ts'
import { timingOf } from './timing.ts'

const { values } = parseArgs({
  options: {
    row: { type: 'string', multiple: true },
    'lease-ms': {
      type: 'string',
      default: process.env['ARBITRATION_LEASE_MS'] ?? String(TIMING.leaseMs),
    },
    'silence-ms': {
      type: 'string',
      default: process.env['ARBITRATION_SILENCE_MS'] ?? String(TIMING.peerSilenceMs),
    },
    list: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
  },
})

function wrong(text: string): never {
  process.stderr.write(`${text}\n`)
  process.exit(2)
}

function milliseconds(name: string, text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value <= 0) wrong(`--${name} ${text}: milliseconds`)
  return value
}

if (values.list) {
  for (const mode of ['witness', 'static-priority'] as const) {
    process.stdout.write(`${mode}\n\n${tableOf(mode).join('\n')}\n\n`)
  }
  process.exit(0)
}
const numbers = (values.row ?? ROWS.map((_, index) => String(index + 1))).map((text) => {
  const number = Number(text)
  if (ROWS[number - 1] === undefined) wrong(`--row ${text}: 1 to ${ROWS.length}`)
  return number
})
const timing = timingOf({
  leaseMs: milliseconds('lease-ms', values['lease-ms']),
  peerSilenceMs: milliseconds('silence-ms', values['silence-ms']),
})
if (typeof timing === 'string') wrong(timing)
const reason = await whyNot()
if (reason !== undefined) {
  process.stderr.write(`arbitration is not tried here: ${reason}\n`)
  process.exit(3)
}

const say = (line: string) => void (values.verbose && process.stdout.write(`${line}\n`))
let stage = await Stage.start({ clock: systemClock, timing, keep: values.keep, say })
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  // The janitor puts away what is left.
  process.on(signal, () => process.exit(130))
}
let failed = 0
for (const number of numbers) {
  const row = ROWS[number - 1]
  if (row === undefined) continue
  try {
    const outcome = await stage.try(row, number)
    const { seconds, standMs, remedyMs, givenUp } = outcome
    const told = [
      `stood as it should after ${standMs.join(' + ')} ms`,
      ...(remedyMs === null ? [] : [`back ${remedyMs} ms after ${row.remedy}`]),
      ...(givenUp === 0 ? [] : [`${givenUp} writes given up as announced`]),
    ].join('; ')
    process.stdout.write(
      values.json
        ? `${JSON.stringify(outcome)}\n`
        : `ok   ${String(number).padStart(2)}  ${row.mode}: ${tellRow(row)} (${told}; ${seconds} s)\n`,
    )
  } catch (error) {
    failed++
    const text = (error as Error).message
    process.stdout.write(
      values.json
        ? `${JSON.stringify({ row: number, wrong: text })}\n`
        : `FAIL ${String(number).padStart(2)}  ${row.mode}: ${tellRow(row)}: ${text}\n     ${stage.directory}\n`,
    )
    // What a failed row leaves behind would only fail the next one.
    await stage.close(values.keep)
    stage = await Stage.start({ clock: systemClock, timing, keep: values.keep, say })
  }
}
await stage.close()
process.exit(failed === 0 ? 0 : 1)
