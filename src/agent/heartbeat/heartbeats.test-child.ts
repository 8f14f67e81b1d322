import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { startHeartbeats } from './heartbeats.ts'

/* An agent that consists of heartbeats: beats with the port it is told, blocks its main thread, and ends of itself. */

const port = Number(process.env['BEATS_PORT'])
const beats = await startHeartbeats({
  listen: { host: '127.0.0.1', port: 0 },
  security: { kind: 'keyed', secret: Buffer.from('secret') },
  self: { site: 'az2', agent: 'az2-agent', run_id: 'child', boot_id: 'boot' },
  heartbeatMs: 50,
  silenceMs: 400,
  clock: systemClock,
  log: createLog('child', 'fatal'),
})
beats.watch('nobody here knows', { host: '127.0.0.1', port })
await new Promise((resolve) => setTimeout(resolve, 200))
console.log('blocking')
Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(process.env['BEATS_BLOCK_MS']))
