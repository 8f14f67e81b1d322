/* One volume of a site behind the NBD server, without replication: the program that `bench/nbd.ts` measures.
 * Arguments: directory, size in bytes. Prints {"socket":...} when it serves. */
import { ExportTable } from '#agent/nbd/exports.ts'
import { localDevice } from '#agent/nbd/local-device.ts'
import { NbdServer } from '#agent/nbd/server.ts'
import { openFileVolumeStore } from '#agent/volumes/file/file-volume-store.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { sizeThreadPool } from '#base/system/thread-pool.ts'

sizeThreadPool()
const [directory = '', size = ''] = process.argv.slice(2)
const log = createLog('bench', 'warn')
const store = await openFileVolumeStore({
  directory: `${directory}/volumes`,
  log,
  wallMs: () => systemClock.wallMs(),
})
await store.create('vol', Number(size), { mode: 'standalone' })
const exports = new ExportTable()
exports.serve('vol', localDevice(await store.open('vol')))
const server = new NbdServer({ exports, log, clock: systemClock })
const socket = `${directory}/nbd.sock`
await server.listenUnix(socket)
console.log(JSON.stringify({ socket }))
process.once('SIGTERM', () => {
  void server
    .close()
    .then(() => store.close())
    .then(() => process.exit(0))
})
