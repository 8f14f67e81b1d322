/**
 * The simulator: `npm run sim -- --seeds N [--seed S] [--jobs J] [--json] [--plant NAME] [--log]`.
 *
 *     --seeds N     how many seeds to run (500)
 *     --seed S      the first one (1); alone, runs just this seed and prints its log
 *     --jobs J      worker threads (one per core); neither their number nor their order changes what a seed does
 *     --plant NAME  plants a mistake, see sim/plants; the run is then expected to fail
 *     --log         prints the log of the first seed that breaks a promise
 *     --json        one line of JSON instead of text
 *
 * Exits with 0 only when every promise was kept and everything that must be exercised was.
 */
import { parseArgs } from 'node:util'
import { COVERAGE_SEEDS_MIN, planOf, runCampaign, wantedCoverage } from './campaign.ts'
import { FAULTS_MIN } from './world/fault-kinds.ts'
import { HONEST } from './world/plan.ts'
import { runSeed } from './world/run.ts'

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      seeds: { type: 'string' },
      seed: { type: 'string' },
      jobs: { type: 'string' },
      plant: { type: 'string' },
      log: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  })
  const firstSeed = wholeNumber('--seed', values.seed ?? '1')
  const seeds = wholeNumber('--seeds', values.seeds ?? (values.seed === undefined ? '500' : '1'))
  const plan = values.plant === undefined ? HONEST : planOf(values.plant)
  const jobs = values.jobs === undefined ? {} : { jobs: wholeNumber('--jobs', values.jobs) }
  const single = seeds === 1 && values.seed !== undefined

  const startedMs = performance.now()
  const campaign = await runCampaign({ firstSeed, seeds, plan, ...jobs })
  const seconds = (performance.now() - startedMs) / 1000
  const replay = (seed: number) =>
    `npm run sim -- --seed ${seed}${plan === HONEST ? '' : ` --plant ${plan.name}`}`
  const failed = campaign.broken.length > 0 || campaign.missing.length > 0

  if (values.json) {
    const { broken, missing, events, virtualMs, coverage } = campaign
    console.log(
      JSON.stringify({
        ok: !failed,
        plan: plan.name,
        firstSeed,
        seeds: campaign.seeds,
        seconds,
        events,
        virtualHours: virtualMs / 3_600_000,
        broken: broken.map((one) => ({ ...one, replay: replay(one.seed) })),
        missing,
        faults: campaign.faults,
        coverage: Object.fromEntries(coverage.counts),
      }),
    )
    return failed ? 1 : 0
  }

  const logged = single ? firstSeed : values.log ? campaign.broken[0]?.seed : undefined
  if (logged !== undefined) console.log(runSeed(logged, plan, true).log.join('\n'))
  if (!single) {
    console.log(campaign.coverage.table(wantedCoverage()))
    const { least, leastSeed, most, all } = campaign.faults
    console.log(
      `\nfaults per seed: least ${least} (seed ${leastSeed}, ${FAULTS_MIN} are demanded), ` +
        `mean ${(all / campaign.seeds).toFixed(1)}, most ${most}`,
    )
    console.log(
      `${campaign.seeds} seeds from ${firstSeed} in ${seconds.toFixed(1)} s, ` +
        `${(campaign.seeds / seconds).toFixed(0)} seeds/s, ${campaign.events} events, ` +
        `${(campaign.virtualMs / 3_600_000).toFixed(1)} hours of virtual time`,
    )
  }
  if (campaign.seeds < COVERAGE_SEEDS_MIN) {
    console.log(`coverage is not judged below ${COVERAGE_SEEDS_MIN} seeds`)
  }
  for (const name of campaign.missing) console.log(`NEVER EXERCISED ${name}`)
  for (const { seed, what } of campaign.broken) {
    console.log(`BROKEN seed ${seed}: ${what.split('\n')[0]}  ->  ${replay(seed)}`)
  }
  console.log(failed ? 'failed' : 'all promises kept')
  return failed ? 1 : 0
}

function wholeNumber(option: string, text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new Error(`${option} ${text}: accepted is a whole number from 1`)
  }
  return value
}

process.exitCode = await main()
