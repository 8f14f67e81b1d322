/* Question: how long does a backup take, and a restore, against restic and borg, and how much is stored?
 *
 * One image of 1 GiB (25 % zero, 35 % real files, 40 % random) goes through: a first backup; a backup after 1 % of its 4 KiB blocks changed, scattered; one
 * after 10 MiB in a row changed; a restore of the last one. All three encrypt, all write to a repository on the same file system,
 * all are started as programs, start-up included. restic and borg run with the defaults of their Debian packages (restic 0.14 with its
 * compression, borg with lz4 and repokey).
 *
 * "Vault open" is what a program does that has it open: no start, no passphrase to stretch (vault-open.ts).
 * "Agent" is the whole path of an agent that tracks changes: from the request over the snapshot to the checkpoint (vault-agent.ts).
 * "Ranges known" is what a caller that tracks changes gets: the ranges are known, so only they are read. The others cannot be told; they
 * read the whole image, and so does our line without. Every restored file is compared byte for byte.
 *
 * A restore is measured from a repository that no cache holds, as on the day when one is needed, until what was restored is durable: we sync it
 * (decision 0113), behind the others a sync is asked for. "Cached" is the same right after the backup, until the program ends: the others then read what
 * they have just written from memory, and leave what they write there, while we read and write the disk (decisions 0113, 0193).
 *
 * What makes the figures meaningless: other processes on the machine (each sample tells their share; one that writes to a disk keeps the next sample waiting); files in the page
 * cache (but for "restore" they are, for all three: the image was just written); a different mix of data, for which ratios shift. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { globSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { diskAtRest } from './lib/disk-at-rest.ts'
import { cpuTimes, machineFacts, median } from './lib/machine.ts'
import type { AgentTold } from './vault-agent.ts'
import { changePiece, sameFiles, scatterChanges, writeImage } from './vault-image.ts'
import type { OpenVaultTold } from './vault-open.ts'

export interface VaultBenchOptions {
  readonly json: boolean
  readonly pairs: number
  readonly sizeBytes?: number
}

const PASSWORD = 'benchmark'
const FOREIGN_MAX = 0.15
/** Of writes while a backup takes its snapshot. */
const STALL_P99_MS = 250
const CASES = [
  'first',
  'scattered',
  'scattered, ranges known',
  'contiguous',
  'contiguous, ranges known',
  'contiguous, vault open',
  'contiguous, agent',
  'restore',
  'restore, cached',
] as const
type Case = (typeof CASES)[number]
const GOALS: Partial<Record<Case, { readonly speed: number; readonly stored?: number }>> = {
  first: { speed: 1.5 },
  scattered: { speed: 3, stored: 1 / 3 },
  'contiguous, vault open': { speed: 20 },
  'contiguous, agent': { speed: 20 },
  restore: { speed: 1.5 },
  'restore, cached': { speed: 1.5 },
}

interface Sample {
  readonly seconds: number
  /** Processor time, user and system: says more than the clock when others use the machine. */
  readonly cpuSeconds: number
  /** Bytes that the repository grew by. */
  readonly stored: number
  /** Largest resident memory, in MiB. */
  readonly memoryMib: number
  /** Share of the machine that went to others. */
  readonly foreign: number
}

interface Tool {
  readonly name: 'holdfast' | 'restic' | 'borg'
  readonly repository: string
  init(): void
  /** Command line of a backup of `image`; `changed`: file with ranges, for the one that can use it. */
  backup(round: string, image: string, changed: string | undefined): readonly string[]
  restore(
    round: string,
    image: string,
    to: string,
  ): { readonly args: readonly string[]; readonly file: string; readonly cwd: string }
}

function tools(directory: string): Tool[] {
  const at = (name: string) => join(directory, name)
  const self = [
    process.execPath,
    '--disable-warning=ExperimentalWarning',
    join(import.meta.dirname, '../src/main.ts'),
    'vault',
  ]
  const vault = ['--vault', at('holdfast')]
  return [
    {
      name: 'holdfast',
      repository: at('holdfast'),
      init: () => run([...self, 'init', ...vault]),
      backup: (_, image, changed) => [
        ...self,
        'backup',
        ...vault,
        '--image',
        image,
        '--volume',
        'image',
        '--json',
        ...(changed === undefined ? [] : ['--changed', changed]),
        '--parent',
        'last',
      ],
      restore: (_, __, to) => ({
        args: [
          ...self,
          'restore',
          lastCheckpoint([...self, 'ls', ...vault, '--json']),
          ...vault,
          '--to',
          join(to, 'image'),
        ],
        file: join(to, 'image'),
        cwd: to,
      }),
    },
    {
      name: 'restic',
      repository: at('restic'),
      init: () => run(['restic', '-q', '-r', at('restic'), 'init']),
      backup: (_, image) => ['restic', '-q', '-r', at('restic'), 'backup', image],
      restore: (_, image, to) => ({
        args: ['restic', '-q', '-r', at('restic'), 'restore', 'latest', '--target', to],
        file: join(to, image),
        cwd: to,
      }),
    },
    {
      name: 'borg',
      repository: at('borg'),
      init: () => run(['borg', 'init', '-e', 'repokey', at('borg')]),
      backup: (round, image) => ['borg', 'create', `${at('borg')}::${round}`, image],
      restore: (round, image, to) => ({
        args: ['borg', 'extract', `${at('borg')}::${round}`],
        file: join(to, image),
        cwd: to,
      }),
    },
  ]
}

const env = (directory: string) => ({
  ...process.env,
  HOLDFAST_VAULT_PASSPHRASE: PASSWORD,
  RESTIC_PASSWORD: PASSWORD,
  BORG_PASSPHRASE: PASSWORD,
  RESTIC_CACHE_DIR: join(directory, 'restic-cache'),
  BORG_BASE_DIR: join(directory, 'borg-base'),
  NODE_COMPILE_CACHE: join(import.meta.dirname, '../node_modules/.cache/holdfast'),
})

let environment: NodeJS.ProcessEnv = process.env

const run = ([program = '', ...args]: readonly string[]) =>
  void execFileSync(program, args, { env: environment, stdio: ['ignore', 'pipe', 'pipe'] })

function lastCheckpoint([program = '', ...args]: readonly string[]): string {
  const text = execFileSync(program, args, { env: environment, encoding: 'utf8' })
  const { checkpoints } = JSON.parse(text) as { checkpoints: { id: string }[] }
  return checkpoints.at(-1)?.id ?? ''
}

async function measure(args: readonly string[], cwd: string, repository: string): Promise<Sample> {
  await diskAtRest()
  const before = bytesIn(repository)
  const cpuBefore = cpuTimes([])
  const began = performance.now()
  const child = spawn('/usr/bin/time', ['-f', '%e %U %S %M', ...args], {
    cwd,
    env: environment,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let printed = ''
  child.stderr.on('data', (piece: Buffer) => (printed += piece.toString()))
  const [code] = (await once(child, 'close')) as [number]
  const seconds = (performance.now() - began) / 1000
  if (code !== 0) throw new Error(`${args.join(' ')} ended with ${code}: ${printed}`)
  const cpuAfter = cpuTimes([])
  const [, user = 0, system = 0, memoryKib = 0] = (printed.trim().split('\n').at(-1) ?? '')
    .split(' ')
    .map(Number)
  const capacity = seconds * machineFacts(repository).cores
  const others =
    cpuAfter.all -
    cpuBefore.all -
    (cpuAfter.kernelThreads - cpuBefore.kernelThreads) -
    (cpuAfter.ours - cpuBefore.ours) -
    user -
    system
  return {
    seconds,
    cpuSeconds: user + system,
    stored: bytesIn(repository) - before,
    memoryMib: Math.round(memoryKib / 1024),
    foreign: Math.max(0, others / capacity),
  }
}

/** In a process of its own: that of the benchmark has gigabytes of other things in its memory. */
async function measureOpenVault(
  repository: string,
  image: string,
  changed: string,
): Promise<Sample> {
  const before = bytesIn(repository)
  const told = await toldBy<OpenVaultTold>('vault-open.ts', repository, PASSWORD, image, changed)
  return { ...told, stored: bytesIn(repository) - before, foreign: 0 }
}

async function toldBy<T>(script: string, ...args: readonly string[]): Promise<T> {
  await diskAtRest()
  const text = execFileSync(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', join(import.meta.dirname, script), ...args],
    { env: environment, encoding: 'utf8' },
  )
  return JSON.parse(text) as T
}

const bytesIn = (directory: string): number =>
  globSync('**/*', { cwd: directory })
    .map((path) => statSync(join(directory, path)))
    .reduce((sum, facts) => sum + (facts.isFile() ? facts.size : 0), 0)

export async function benchVault(options: VaultBenchOptions): Promise<void> {
  const sizeBytes = options.sizeBytes ?? 1024 ** 3
  const say = (text: string) => (options.json ? process.stderr : process.stdout).write(`${text}\n`)
  const root = mkdtempSync(join(tmpdir(), 'holdfast-bench-vault-'))
  const samples = new Map<string, Sample[]>()
  const facts = machineFacts(root)
  try {
    say(
      `${facts.cores} cores (${facts.processor}), ${facts.file_system}, kernel ${facts.kernel}, Node ${facts.node}`,
    )
    say(`${version('restic')}; ${version('borg')}`)
    for (let round = 0; round < options.pairs; round++)
      await oneRound(root, round, sizeBytes, samples, say)
    for (const name of CASES) {
      const line = result(name, samples)
      if (options.json) process.stdout.write(`${JSON.stringify({ ...line, ...facts })}\n`)
      else show(line)
    }
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
}

/** Everything once, on new data and new repositories; the tools take turns in every step, in another order each round. */
async function oneRound(
  root: string,
  round: number,
  sizeBytes: number,
  samples: Map<string, Sample[]>,
  say: (text: string) => unknown,
): Promise<void> {
  const directory = join(root, String(round))
  mkdirSync(directory)
  environment = env(directory)
  const image = join(directory, 'image')
  const changed = join(directory, 'changed.json')
  writeImage(image, sizeBytes)
  const all = tools(directory)
  for (const tool of all) tool.init()
  const turned = [...all.slice(round % 3), ...all.slice(0, round % 3)]
  const ours = all.filter((tool) => tool.name === 'holdfast')

  const step = async (name: Case, who: readonly Tool[], use: (tool: Tool) => readonly string[]) => {
    for (const tool of who) {
      const sample = await measure(use(tool), directory, tool.repository)
      note(samples, name, tool.name, sample)
      say(
        `round ${round + 1} ${name.padEnd(26)} ${tool.name.padEnd(9)} ${sample.seconds.toFixed(2)} s  cpu ${sample.cpuSeconds.toFixed(2)}  ${(sample.stored / 1e6).toFixed(1)} MB  ${sample.memoryMib} MiB  others ${(sample.foreign * 100).toFixed(0)} %`,
      )
    }
  }
  await step('first', turned, (tool) => tool.backup('first', image, undefined))
  scatterChanges(image, sizeBytes, 0.01)
  await step('scattered', turned, (tool) => tool.backup('scattered', image, undefined))
  writeFileSync(changed, JSON.stringify(scatterChanges(image, sizeBytes, 0.01)))
  await step('scattered, ranges known', ours, (tool) => tool.backup('more', image, changed))
  const peers = turned.filter((tool) => tool.name !== 'holdfast')
  for (const tool of peers)
    await measure(tool.backup('more', image, undefined), directory, tool.repository)
  changePiece(image, sizeBytes / 2 + 12_288, 10 * 1024 * 1024)
  await step('contiguous', turned, (tool) => tool.backup('contiguous', image, undefined))
  const ranges = changePiece(image, sizeBytes / 4 + 12_288, 10 * 1024 * 1024)
  writeFileSync(changed, JSON.stringify(ranges))
  await step('contiguous, ranges known', turned, (tool) => tool.backup('last', image, changed))
  const again = changePiece(image, sizeBytes / 8 + 12_288, 10 * 1024 * 1024)
  writeFileSync(changed, JSON.stringify(again))
  const open = await measureOpenVault(join(directory, 'holdfast'), image, changed)
  note(samples, 'contiguous, vault open', 'holdfast', open)
  say(
    `round ${round + 1} ${'contiguous, vault open'.padEnd(26)} holdfast  ${open.seconds.toFixed(3)} s  cpu ${open.cpuSeconds.toFixed(3)}`,
  )
  const agent = await toldBy<AgentTold>('vault-agent.ts', join(directory, 'agent'), image)
  rmSync(join(directory, 'agent'), { recursive: true })
  note(samples, 'contiguous, agent', 'holdfast', { ...agent, foreign: 0 })
  say(
    `round ${round + 1} ${'contiguous, agent'.padEnd(26)} holdfast  ${agent.seconds.toFixed(3)} s  cpu ${agent.cpuSeconds.toFixed(3)}  (first backup ${agent.firstSeconds.toFixed(2)} s; 4 KiB writes meanwhile: p99 ${agent.stallP99Ms.toFixed(1)} ms, longest ${agent.stallMaxMs.toFixed(1)} ms of ${agent.writes}; goal p99 250 ms ${agent.stallP99Ms <= STALL_P99_MS ? 'reached' : 'NOT REACHED'})`,
  )
  for (const tool of peers) {
    await measure(tool.backup('open', image, undefined), directory, tool.repository)
  }
  for (const name of ['restore, cached', 'restore'] as const) {
    for (const tool of turned) {
      const to = join(directory, `restored-${tool.name}`)
      mkdirSync(to)
      const { args, file, cwd } = tool.restore('open', image, to)
      if (name === 'restore') emptyCaches()
      const durably = ['sh', '-c', '"$@" && exec sync -f "$0"', file, ...args]
      const sample = await measure(name === 'restore' ? durably : args, cwd, tool.repository)
      if (!sameFiles(image, file)) throw new Error(`${tool.name} restored something else`)
      note(samples, name, tool.name, sample)
      say(
        `round ${round + 1} ${name.padEnd(26)} ${tool.name.padEnd(9)} ${sample.seconds.toFixed(2)} s  cpu ${sample.cpuSeconds.toFixed(2)}  ${sample.memoryMib} MiB  others ${(sample.foreign * 100).toFixed(0)} %`,
      )
      rmSync(to, { recursive: true })
    }
  }
  rmSync(directory, { recursive: true })
}

/** Needs the rights to; programs lose their own pages with everything else. */
function emptyCaches(): void {
  execFileSync('sync')
  writeFileSync('/proc/sys/vm/drop_caches', '3\n')
}

function note(samples: Map<string, Sample[]>, name: Case, tool: string, sample: Sample): void {
  const key = `${name}/${tool}`
  samples.set(key, [...(samples.get(key) ?? []), sample])
}

function result(name: Case, samples: ReadonlyMap<string, readonly Sample[]>) {
  const of = (tool: string) => samples.get(`${name}/${tool}`) ?? []
  // A case that only we have is compared with what the others do for the same change.
  const peerCase =
    name === 'scattered, ranges known'
      ? 'scattered'
      : name === 'contiguous, vault open' || name === 'contiguous, agent'
        ? 'contiguous, ranges known'
        : name
  const peer = (tool: string) => samples.get(`${peerCase}/${tool}`) ?? []
  const ours = of('holdfast')
  const ratios = ours.map((sample, i) => {
    const others = [peer('restic')[i], peer('borg')[i]].map((one) => one?.seconds ?? Number.NaN)
    return Math.min(...others) / sample.seconds
  })
  const stored = ours.map((sample, i) => {
    const others = [peer('restic')[i], peer('borg')[i]].map((one) => one?.stored ?? Number.NaN)
    return sample.stored / Math.min(...others)
  })
  const seconds = (list: readonly Sample[]) =>
    Number(median(list.map((one) => one.seconds)).toFixed(2))
  const cpu = (list: readonly Sample[]) =>
    Number(median(list.map((one) => one.cpuSeconds)).toFixed(2))
  const megabytes = (list: readonly Sample[]) =>
    Number((median(list.map((one) => one.stored)) / 1e6).toFixed(1))
  return {
    case: name,
    holdfast_s: seconds(ours),
    holdfast_cpu_s: cpu(ours),
    restic_cpu_s: cpu(peer('restic')),
    borg_cpu_s: cpu(peer('borg')),
    restic_s: seconds(peer('restic')),
    borg_s: seconds(peer('borg')),
    ratio: Number(median(ratios).toFixed(2)),
    ratio_min: Number(Math.min(...ratios).toFixed(2)),
    ratio_max: Number(Math.max(...ratios).toFixed(2)),
    holdfast_mb: megabytes(ours),
    restic_mb: megabytes(peer('restic')),
    borg_mb: megabytes(peer('borg')),
    stored_ratio: Number(median(stored).toFixed(3)),
    memory_mib: Math.max(...ours.map((one) => one.memoryMib)),
    rounds: ours.length,
    samples_disturbed: [...ours, ...peer('restic'), ...peer('borg')].filter(
      ({ foreign }) => foreign > FOREIGN_MAX,
    ).length,
  }
}

function show(line: ReturnType<typeof result>): void {
  const goal = GOALS[line.case]
  const judged = (reached: boolean) => (reached ? 'reached' : 'NOT REACHED')
  const speed = goal === undefined ? '' : `  goal ${goal.speed} ${judged(line.ratio >= goal.speed)}`
  const stored =
    goal?.stored === undefined
      ? ''
      : `  stored goal ${goal.stored.toFixed(2)} ${judged(line.stored_ratio <= goal.stored)}`
  const busy =
    line.samples_disturbed === 0 ? '' : `  (${line.samples_disturbed} samples on a busy machine)`
  console.log(
    `${line.case.padEnd(26)} ${line.holdfast_s} s, restic ${line.restic_s}, borg ${line.borg_s}  cpu ${line.holdfast_cpu_s}, ${line.restic_cpu_s}, ${line.borg_cpu_s}  ratio ${line.ratio} (${line.ratio_min}-${line.ratio_max})${speed}` +
      (line.case.startsWith('restore')
        ? ''
        : `  stored ${line.holdfast_mb} MB, restic ${line.restic_mb}, borg ${line.borg_mb}: ${line.stored_ratio}${stored}`) +
      `  memory ${line.memory_mib} MiB${busy}`,
  )
}

const version = (program: string): string =>
  execFileSync(program, [program === 'restic' ? 'version' : '--version'], {
    encoding: 'utf8',
  }).trim()
