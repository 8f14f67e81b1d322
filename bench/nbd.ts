/* Question: what does our NBD server cost without replication, against nbdkit and qemu-nbd on the same kind of file?
 *
 * Meaningless when: other processes took part of the machine (samples say how much), or the file systems differ. Client and server
 * share the cores, so only ratios tell something. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LOADS, type LoadName, measure, type Sample } from './lib/fio.ts'
import { machineFacts, median } from './lib/machine.ts'
import {
  firstLine,
  nbdkitFile,
  type NbdTarget,
  qemuNbd,
  sparseFile,
  start,
  unixUri,
} from './lib/programs.ts'

const GIB = 1024 ** 3

async function holdfast(directory: string, sizeBytes: number): Promise<NbdTarget> {
  let socket = ''
  const script = join(import.meta.dirname, 'serve-volume.ts')
  const flags = process.env['BENCH_NODE_FLAGS']?.split(' ') ?? []
  const program = await start(
    process.execPath,
    [...flags, script, directory, String(sizeBytes)],
    async (child) => {
      ;({ socket } = await firstLine<{ socket: string }>(child))
    },
  )
  return { ...program, uri: unixUri(socket) }
}

export async function benchNbd(options: {
  readonly json: boolean
  readonly pairs: number
  readonly runtimeS: number
  readonly loads: readonly LoadName[]
}): Promise<void> {
  const directory = mkdtempSync(join(process.env['BENCH_DIR'] ?? tmpdir(), 'holdfast-bench-'))
  try {
    const facts = machineFacts(directory)
    if (!options.json) console.log(facts)
    const settings = { runtimeS: options.runtimeS, sizeBytes: GIB }
    const servers = {
      holdfast: await holdfast(directory, GIB),
      nbdkit: await nbdkitFile(
        join(directory, 'k.sock'),
        sparseFile(join(directory, 'k.raw'), GIB),
      ),
      'qemu-nbd': await qemuNbd(
        join(directory, 'q.sock'),
        sparseFile(join(directory, 'q.raw'), GIB),
      ),
    }
    for (const name of options.loads) {
      const samples = new Map<string, Sample[]>(Object.keys(servers).map((key) => [key, []]))
      for (let round = 0; round < options.pairs; round++) {
        const order = Object.entries(servers)
        for (let turn = 0; turn < round % order.length; turn++)
          order.push(order.shift() ?? ['', servers.nbdkit])
        for (const [key, server] of order) {
          samples.get(key)?.push(await measure(LOADS[name], server.uri, server.pids, settings))
        }
      }
      const line: Record<string, unknown> = { case: LOADS[name].name, unit: LOADS[name].unit }
      for (const [key, list] of samples) {
        line[key] = Math.round(median(list.map((sample) => sample.value)))
        line[`${key}_p50_us`] = Math.round(median(list.map((sample) => sample.p50Us)))
        line[`${key}_foreign`] = Number(median(list.map((sample) => sample.foreign)).toFixed(2))
      }
      console.log(options.json ? JSON.stringify({ ...line, ...facts }) : line)
    }
    for (const server of Object.values(servers)) await server.stop()
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}
