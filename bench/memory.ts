/* Question: what does a protected group cost an agent that has nothing to do, and what a further volume in it?
 *
 * Resident memory (VmRSS) of both agents of a system as `holdfast up` starts it: with no group, with 1, 16 and 64 groups of one volume, and, in another
 * system, with one group of 64 volumes; and the processor time that both agents use in ten seconds of rest. Every pair had a MiB written to it.
 * The slopes are (64 groups - 1 group) / 63 and (64 volumes - 1 volume) / 63. Both agents are started anew before each look, or what the making of the
 * groups left behind would be counted with them.
 *
 * What would make it meaningless: the garbage collector, which takes memory while nobody needs it: a step of a few MiB is noise, so only the slope over
 * 63 is worth something. Pages of files that are mapped (bitmaps, maps, run files) are counted in VmRSS, shared or not: the part that is
 * the kernel's to take back is printed as RssFile. Processor time is in ticks of 10 ms. */
import { readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { disturbedOf, Lines, round, weighed, type Weighed } from './lib/lines.ts'
import { machineFacts, processorSeconds } from './lib/machine.ts'
import { type Group, inParallel, pause, SITES, System } from './lib/system.ts'

const MIB = 1024 * 1024
const STEPS = [1, 16, 64]
const SETTLE_MS = 5_000
const IDLE_MS = 10_000

interface Look {
  /** MiB, of the writer's agent and of the replica's. */
  readonly writer: number
  readonly replica: number
  readonly writerFile: number
  /** Percent of one core, both agents. */
  readonly cpu: number
}

export interface MemoryOptions {
  readonly json: boolean
  /** Most groups, and most volumes in one. */
  readonly volumes: number
}

export async function benchMemory(options: MemoryOptions): Promise<void> {
  const lines = new Lines(options.json, machineFacts(tmpdir()))
  const steps = STEPS.filter((count) => count <= options.volumes)
  const most = steps.at(-1) ?? 1

  const byGroups = new Map<number, Weighed<Look>>()
  await withSystem(async (system) => {
    show(lines, 'no group', await look(system, []))
    const groups: Group[] = []
    for (const count of steps) {
      groups.push(...(await system.groups(count - groups.length, 1)))
      const seen = await look(system, groups)
      byGroups.set(count, seen)
      show(lines, `${count} ${count === 1 ? 'group' : 'groups'} of 1 volume`, seen)
    }
  })
  const one = byGroups.get(1)
  const many = byGroups.get(most)
  if (one !== undefined && many !== undefined && most > 1) slope(lines, 'group', one, many, most)

  await withSystem(async (system) => {
    const groups = await system.groups(1, most)
    const seen = await look(system, groups)
    show(lines, `1 group of ${most} volumes`, seen)
    if (one !== undefined && most > 1) slope(lines, 'volume', one, seen, most)
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

async function look(system: System, groups: readonly Group[]): Promise<Weighed<Look>> {
  const { lab } = system
  await Promise.all(
    SITES.map(async (site) => {
      const before = system.agentPid(site)
      lab.kill(`${site}-agent`, 'SIGTERM')
      await lab.until(
        `${site} is back`,
        async () => system.agentPid(site),
        (pid) => pid !== before,
      )
    }),
  )
  const pairs = groups.flatMap((group) => group.pairs)
  const data = Buffer.alloc(MIB, 1)
  await inParallel(pairs.length, (index) => system.write('az1', pairs[index] ?? '', data))
  for (const { id } of groups) await system.inSync(id)
  await pause(SETTLE_MS)
  return await weighed(system.pids, async () => {
    const spent = () =>
      SITES.reduce((sum, site) => sum + processorSeconds(system.agentPid(site)), 0)
    const before = spent()
    await pause(IDLE_MS)
    const cpu = ((spent() - before) / (IDLE_MS / 1000)) * 100
    const writer = memoryOf(system.agentPid('az1'))
    const replica = memoryOf(system.agentPid('az2'))
    return { writer: writer.rss, replica: replica.rss, writerFile: writer.file, cpu }
  })
}

function memoryOf(pid: number): { rss: number; file: number } {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8')
  const kib = (name: string) => Number(new RegExp(`^${name}:\\s*(\\d+) kB`, 'm').exec(text)?.[1])
  return { rss: kib('VmRSS') / 1024, file: kib('RssFile') / 1024 }
}

function show(lines: Lines, what: string, seen: Weighed<Look>): void {
  const { writer, replica, writerFile, cpu } = seen.value
  lines.show(
    {
      case: `memory, ${what}`,
      figure: round(writer, 1),
      unit: 'MiB at the writer',
      bound: null,
      samples: 1,
      disturbed: disturbedOf([seen]),
      also: {
        replica_mib: round(replica, 1),
        of_writer_file_pages_mib: round(writerFile, 1),
        idle_cpu_percent_of_a_core: round(cpu, 1),
      },
    },
    'most',
  )
}

function slope(
  lines: Lines,
  what: string,
  one: Weighed<Look>,
  many: Weighed<Look>,
  count: number,
): void {
  const per = (of: (look: Look) => number) =>
    round(((of(many.value) - of(one.value)) * 1024) / (count - 1))
  lines.show(
    {
      case: `memory per ${what}`,
      figure: per(({ writer }) => writer),
      unit: 'KiB at the writer',
      bound: null,
      samples: 2,
      disturbed: disturbedOf([one, many]),
      also: {
        replica_kib: per(({ replica }) => replica),
        idle_cpu_percent_of_a_core: round((many.value.cpu - one.value.cpu) / (count - 1), 3),
      },
    },
    'most',
  )
}
