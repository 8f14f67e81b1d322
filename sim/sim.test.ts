import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NEXT_PHASES } from '#agent/replication/session/phases.ts'
import { COVERAGE_SEEDS_MIN, reachableMoves, runCampaign, wantedCoverage } from './campaign.ts'
import { PLANTS } from './plants/plants.ts'
import { SELDOM } from './seldom.ts'
import { runSeed } from './world/run.ts'

/** On two idle cores about a minute. */
const SEEDS = 20_000
/** No limit for all of them: a machine that has twenty other things to do needs half an hour, and finds the same. Fails instead when not even a
 *  few dozen seeds end within this time, which on an idle core take half a second. */
const STUCK_MS = 600_000
const FOREVER = { timeout: Number.POSITIVE_INFINITY }

test(
  `${SEEDS} seeds of crashes, cuts and failovers keep every promise and exercise everything`,
  FOREVER,
  async () => {
    assert(SEEDS >= COVERAGE_SEEDS_MIN)
    const startedMs = performance.now()
    const campaign = await runCampaign({ firstSeed: 1, seeds: SEEDS, stuckMs: STUCK_MS })
    const seconds = (performance.now() - startedMs) / 1000
    console.log(campaign.coverage.table(wantedCoverage()))
    const { least, most, all } = campaign.faults
    console.log(`faults per seed: least ${least}, mean ${all / campaign.seeds}, most ${most}`)
    console.log(`${campaign.seeds} seeds in ${seconds.toFixed(1)} s`)
    assert.deepEqual(
      campaign.broken.map(({ seed, what }) => `npm run sim -- --seed ${seed}  # ${what}`),
      [],
    )
    assert.deepEqual(campaign.missing, [], 'never exercised')
  },
)

test('a seed is the same run every time', () => {
  for (const seed of [3, 33, 333]) {
    const first = runSeed(seed)
    const again = runSeed(seed)
    assert.equal(again.events, first.events)
    assert.deepEqual([...again.coverage.counts], [...first.coverage.counts])
  }
})

test('moves that are excused from coverage are moves of the table', () => {
  const table = Object.entries(NEXT_PHASES).flatMap(([from, targets]) =>
    targets.map((to) => `phase ${from}>${to}`),
  )
  table.push(...reachableMoves().map(({ kind, from }) => `move ${kind} from ${from}`))
  assert.deepEqual(
    Object.keys(SELDOM).filter((name) => !table.includes(name)),
    [],
  )
})

for (const plant of PLANTS) {
  test(`the simulator finds a planted mistake: ${plant.name}`, async () => {
    const { broken, seeds } = await runCampaign({
      firstSeed: 1,
      seeds: plant.foundWithin,
      plan: plant,
      brokenMax: 1,
      jobs: 0,
    })
    const found = broken[0]
    assert(found !== undefined, `not found in ${seeds} seeds: ${plant.about}`)
    console.log(`${plant.name}: seed ${found.seed}, ${found.what}`)
  })
}
