/* node bench/vault-open.ts REPOSITORY PASSPHRASE IMAGE CHANGED.json: opens a vault, waits for the disk to be at rest, and tells in one JSON object what one backup of
 * the ranges in CHANGED.json costs from there. */
import { readFileSync } from 'node:fs'
import { systemClock } from '#base/system/clock.ts'
import { openDirStore } from '#vault/dir/dir-store.ts'
import { backUpFile } from '#vault/files/back-up-file.ts'
import { openVault } from '#vault/vault.ts'
import { diskAtRest } from './lib/disk-at-rest.ts'

export interface OpenVaultTold {
  readonly seconds: number
  /** Processor time, user and system. */
  readonly cpuSeconds: number
  /** Largest resident memory of the process, in MiB. */
  readonly memoryMib: number
}

const [repository = '', passphrase = '', image = '', changed = ''] = process.argv.slice(2)
const store = await openDirStore(repository)
const vault = await openVault({ store, clock: systemClock }, { kind: 'passphrase', passphrase })
const parent = (await vault.checkpoints()).at(-1)?.id ?? ''
const ranges = JSON.parse(readFileSync(changed, 'utf8')) as [number, number][]
await diskAtRest()
const cpuBefore = process.cpuUsage()
const began = performance.now()
await backUpFile(vault, image, { volume: 'image', parent, ranges })
const seconds = (performance.now() - began) / 1000
const cpu = process.cpuUsage(cpuBefore)
store.close()
const told: OpenVaultTold = {
  seconds,
  cpuSeconds: (cpu.user + cpu.system) / 1e6,
  memoryMib: Math.round(process.resourceUsage().maxRSS / 1024),
}
process.stdout.write(`${JSON.stringify(told)}\n`)
