/** Some rows of the table of arbitration, with real processes and short times. `npm run arbitration` tries all of them. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { systemClock } from '#base/system/clock.ts'
import { ROWS, tableOf, tellRow } from '../arbitration/rows.ts'
import { Stage } from '../arbitration/stage.ts'
import { timingOf } from '../arbitration/timing.ts'
import { whyNot } from '../torture/needs.ts'

test('the page shows the rows that are tried', () => {
  const path = new URL('../../docs/operating/arbitration.md', import.meta.url)
  const page = readFileSync(path, 'utf8')
  for (const mode of ['witness', 'static-priority'] as const) {
    assert.ok(page.includes(tableOf(mode).join('\n')), `npm run arbitration -- --list: ${mode}`)
  }
})

/** Where the modes part: nobody may decide, or the preferred site decides by itself. */
const TRIED = 'witness lost, then link lost'
const reason = await whyNot()

test('without witness and link nobody is answered, or the preferred site alone, as the mode says', {
  skip: reason === undefined ? false : `arbitration is not tried here: ${reason}`,
}, async (context) => {
  const timing = timingOf({ leaseMs: 1_200, peerSilenceMs: 600 })
  assert.ok(typeof timing !== 'string')
  const told: string[] = []
  const stage = await Stage.start({
    clock: systemClock,
    timing,
    keep: false,
    say: (line) => void told.push(line),
  })
  try {
    for (const [index, row] of ROWS.entries()) {
      if (tellRow(row) !== TRIED) continue
      const outcome = await stage.try(row, index + 1)
      context.diagnostic(`row ${outcome.row}: ${outcome.seconds} s`)
    }
  } catch (error) {
    assert.fail(`${(error as Error).message}\n${told.join('\n')}`)
  } finally {
    await stage.close()
  }
})
