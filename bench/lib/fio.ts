import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { cpuTimes, dropCaches, foreignShare } from './machine.ts'

const run = promisify(execFile)

/** One kind of load. `figure` says which number of fio's is the result. */
export interface Load {
  readonly name: string
  readonly about: string
  readonly unit: 'IOPS' | 'MB/s'
  readonly direction: 'read' | 'write'
  readonly args: readonly string[]
}

export const LOADS = {
  rw1: {
    name: '4k random write QD1',
    about: 'one client waiting for each write: latency',
    unit: 'IOPS',
    direction: 'write',
    args: ['--rw=randwrite', '--bs=4k', '--iodepth=1'],
  },
  rw32: {
    name: '4k random write QD32',
    about: 'a busy database: how well requests are batched',
    unit: 'IOPS',
    direction: 'write',
    args: ['--rw=randwrite', '--bs=4k', '--iodepth=32'],
  },
  sw8: {
    name: '1 MiB sequential write QD8',
    about: 'a copy: bytes per second',
    unit: 'MB/s',
    direction: 'write',
    args: ['--rw=write', '--bs=1m', '--iodepth=8'],
  },
  fs1: {
    name: '4k random write + flush QD1',
    about: 'a transaction log: durable on both sides each time',
    unit: 'IOPS',
    direction: 'write',
    args: ['--rw=randwrite', '--bs=4k', '--iodepth=1', '--fsync=1'],
  },
  rr32: {
    name: '4k random read QD32',
    about: 'reads, which never cross the link',
    unit: 'IOPS',
    direction: 'read',
    args: ['--rw=randread', '--bs=4k', '--iodepth=32'],
  },
} as const satisfies Record<string, Load>

export type LoadName = keyof typeof LOADS

export interface Sample {
  /** In the load's unit. */
  readonly value: number
  /** Median completion time in microseconds; of write and flush together for loads that flush. */
  readonly p50Us: number
  readonly p99Us: number
  /** Median of the flush alone; 0 for loads that do not flush. */
  readonly flushP50Us: number
  /** Share of the machine that went to others meanwhile, 0 to 1. */
  readonly foreign: number
}

interface Direction {
  readonly iops: number
  readonly bw_bytes: number
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> }
}

interface FioReport {
  readonly jobs: readonly {
    readonly error: number
    readonly job_runtime: number
    readonly usr_cpu: number
    readonly sys_cpu: number
    readonly read: Direction
    readonly write: Direction
    readonly sync: { readonly lat_ns: { readonly percentile?: Readonly<Record<string, number>> } }
  }[]
}

export interface Settings {
  readonly runtimeS: number
  readonly sizeBytes: number
}

/** Runs one load against an NBD URI. `pids`: the programs under measurement, whose processor time is not foreign. */
export async function measure(
  load: Load,
  uri: string,
  pids: readonly number[],
  { runtimeS, sizeBytes }: Settings,
): Promise<Sample> {
  dropCaches()
  const before = cpuTimes(pids)
  const { stdout } = await run('fio', [
    '--name=job',
    '--ioengine=nbd',
    `--uri=${uri}`,
    '--time_based=1',
    `--runtime=${runtimeS}`,
    '--randrepeat=0',
    '--norandommap',
    `--size=${sizeBytes}`,
    '--output-format=json',
    ...load.args,
  ])
  const after = cpuTimes(pids)
  // Old versions print notes in front of the report.
  const report = JSON.parse(stdout.slice(stdout.indexOf('{'))) as FioReport
  const job = report.jobs[0]
  if (job === undefined || job.error !== 0) throw new Error(`fio failed with ${job?.error}: ${uri}`)
  const direction = job[load.direction]
  const percentile = (which: string): number =>
    ((direction.clat_ns.percentile?.[which] ?? 0) + (job.sync.lat_ns.percentile?.[which] ?? 0)) /
    1000
  const fioSeconds = (((job.usr_cpu + job.sys_cpu) / 100) * job.job_runtime) / 1000
  return {
    value: load.unit === 'IOPS' ? direction.iops : direction.bw_bytes / 1e6,
    p50Us: percentile('50.000000'),
    p99Us: percentile('99.000000'),
    flushP50Us: (job.sync.lat_ns.percentile?.['50.000000'] ?? 0) / 1000,
    foreign: foreignShare(before, after, fioSeconds),
  }
}
