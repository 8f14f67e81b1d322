/* Question: does it matter over how many volumes and groups the same load is spread?
 *
 *   volumes   4k random writes, 64 under way in all, on 1, 4, 16 and 64 volumes of one group: one stream, one order
 *   groups    the same, 16 under way, on one volume each of 1, 4 and 16 groups: a stream and an order of its own for each
 *
 * A system as `holdfast up` starts it, link with mTLS. The same number of requests is under way in every case, over the same number of bytes in all (512 MiB,
 * written once before), so that the only difference is how they are spread. Ratio: to the case with one.
 * Nothing was promised; a ratio far below 1 would mean that spreading costs something.
 *
 * What would make it meaningless: other processes (weighed, repeated, marked); fio, which takes a thread per volume and shares the two cores with both sites; groups
 * that would have cores of their own elsewhere do not have them here, so this shows what spreading costs, not what it gains. */
import { execFile } from 'node:child_process'
import { tmpdir } from 'node:os'
import { promisify } from 'node:util'
import { disturbedOf, Lines, medianOf, round, undisturbed } from './lib/lines.ts'
import { cpuTimes, dropCaches, foreignShare, machineFacts } from './lib/machine.ts'
import { unixUri } from './lib/programs.ts'
import { type SiteName, System } from './lib/system.ts'

const run = promisify(execFile)
const MIB = 1024 * 1024
const SPAN_BYTES = 512 * MIB
const VOLUMES = [1, 4, 16, 64]
const VOLUME_DEPTH = 64
const GROUPS = [1, 4, 16]
const GROUP_DEPTH = 16
const WRITER: SiteName = 'az1'

interface Sample {
  readonly iops: number
  readonly foreign: number
}

export interface ScalingOptions {
  readonly json: boolean
  readonly pairs: number
  readonly runtimeS: number
  /** Most volumes of the group. */
  readonly volumes: number
}

export async function benchScaling(options: ScalingOptions): Promise<void> {
  const lines = new Lines(options.json, machineFacts(tmpdir()))
  await withSystem(async (system) => {
    const counts = VOLUMES.filter((count) => count <= options.volumes)
    const [group] = await system.groups(1, counts.at(-1) ?? 1)
    const pairs = group?.pairs ?? []
    const spread = { name: 'volumes of one group', counts, depth: VOLUME_DEPTH, pairs }
    await measureAll(lines, system, options, spread)
  })
  await withSystem(async (system) => {
    const counts = GROUPS.filter((count) => count <= options.volumes)
    const groups = await system.groups(counts.at(-1) ?? 1, 1)
    const pairs = groups.flatMap((group) => group.pairs)
    const spread = { name: 'groups of one volume', counts, depth: GROUP_DEPTH, pairs }
    await measureAll(lines, system, options, spread)
  })
}

async function withSystem(work: (system: System) => Promise<void>): Promise<void> {
  const system = await System.start([])
  try {
    await work(system)
  } finally {
    await system.close()
  }
}

interface Spread {
  readonly name: string
  readonly counts: readonly number[]
  readonly depth: number
  readonly pairs: readonly string[]
}

async function measureAll(
  lines: Lines,
  system: System,
  { pairs: rounds, runtimeS }: ScalingOptions,
  { name, counts, depth, pairs }: Spread,
): Promise<void> {
  const samples = new Map<number, Sample[]>()
  for (const count of counts) {
    await fio(system, pairs.slice(0, count), ['--rw=write', '--bs=1m', '--iodepth=2'], 0)
  }
  for (let i = 0; i < rounds; i++) {
    for (const count of i % 2 === 0 ? counts : counts.toReversed()) {
      const load = ['--rw=randwrite', '--bs=4k', `--iodepth=${Math.max(1, depth / count)}`]
      const sample = () => fio(system, pairs.slice(0, count), load, runtimeS)
      samples.set(count, [...(samples.get(count) ?? []), await undisturbed(sample)])
    }
  }
  const single = samples.get(1) ?? []
  for (const count of counts) {
    const own = samples.get(count) ?? []
    const ratios = own.map(({ iops }, i) => ({ ratio: iops / (single[i]?.iops ?? Number.NaN) }))
    lines.show(
      {
        case: `4k random write, ${count} ${name}, QD${depth} in all`,
        figure: round(medianOf(own, ({ iops }) => iops)),
        unit: 'IOPS',
        bound: null,
        samples: own.length,
        disturbed: disturbedOf(own),
        also: {
          ratio_to_one: round(
            medianOf(ratios, ({ ratio }) => ratio),
            2,
          ),
        },
      },
      'least',
    )
  }
}

/** One job per volume, all at once. `runtimeS` 0: until each has written its share once. */
async function fio(
  system: System,
  pairs: readonly string[],
  load: readonly string[],
  runtimeS: number,
): Promise<Sample> {
  dropCaches()
  const before = cpuTimes(system.pids)
  const { stdout } = await run('fio', [
    '--ioengine=nbd',
    '--thread',
    '--group_reporting',
    '--output-format=json',
    '--randrepeat=0',
    '--norandommap',
    `--size=${SPAN_BYTES / pairs.length}`,
    ...(runtimeS === 0 ? [] : ['--time_based=1', `--runtime=${runtimeS}`]),
    ...load,
    ...pairs.flatMap((pair, index) => [
      `--name=v${index}`,
      `--uri=${unixUri(system.socket(WRITER), pair)}`,
    ]),
  ])
  const after = cpuTimes(system.pids)
  const report = JSON.parse(stdout.slice(stdout.indexOf('{'))) as {
    readonly jobs: readonly {
      readonly error: number
      readonly usr_cpu: number
      readonly sys_cpu: number
      readonly job_runtime: number
      readonly write: { readonly iops: number }
    }[]
  }
  const job = report.jobs[0]
  if (job === undefined || job.error !== 0) throw new Error(`fio failed with ${job?.error}`)
  const seconds = (((job.usr_cpu + job.sys_cpu) / 100) * job.job_runtime) / 1000
  return { iops: job.write.iops, foreign: foreignShare(before, after, seconds) }
}
