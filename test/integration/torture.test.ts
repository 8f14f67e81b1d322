/** A short torture run: three machines in network namespaces, a few rounds of faults. `npm run torture` does the long ones. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '#base/system/clock.ts'
import { runCampaign } from '../torture/campaign.ts'
import { whyNot } from '../torture/needs.ts'
import { reportLines } from '../torture/report.ts'

const reason = await whyNot()

test('two sites and a witness lose nothing and never answer twice while processes die, stop and lose each other', {
  skip: reason === undefined ? false : `torture does not run here: ${reason}`,
}, async (context) => {
  const seed = Number(process.env['TORTURE_SEED'] ?? Date.now() % 1_000_000)
  const told: string[] = []
  const report = await runCampaign({
    clock: systemClock,
    seed,
    from: 0,
    rounds: 8,
    limitMs: 32_000,
    kinds: ['kill', 'cut', 'pause', 'reset'],
    longMs: 4_000,
    volumes: 2,
    chains: 4,
    thinkMs: 10,
    disks: 'small',
    keep: false,
    say: (line) => void told.push(line),
    signal: context.signal,
  })
  for (const line of reportLines(report)) context.diagnostic(line)
  assert.deepEqual(
    report.violations.map(({ what }) => what),
    [],
    `seed ${seed}\n${told.join('\n')}`,
  )
  assert.ok(report.rounds >= 2, 'faults were injected')
  assert.ok(report.acknowledged > 100, 'the load ran')
  assert.equal(report.lost, 0)
})
