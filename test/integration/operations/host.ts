/**
 * A control plane with nothing but the operation engine, for tests that kill it. Never part of the product.
 *
 *     node host.ts '{"url":"sqlite:…","submit":{…SampleInput}|null,"crash":{operation,step,phase}|null}'
 *
 * Prints the crash points it passes, and at the end each operation.
 */
import process from 'node:process'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { createEngine } from '#control/operations/engine.ts'
import type { OperationServices } from '#control/operations/services.ts'
import { openStore } from '#control/store/open.ts'
import { kinds, type SampleInput, say, whole } from './sample.ts'

interface Arguments {
  readonly url: string
  readonly submit: SampleInput | null
  readonly crash: { operation: string; step: string; phase: string } | null
}

const args = JSON.parse(process.argv[2] ?? '') as Arguments
const log = createLog('host', 'error')
const store = await openStore({ url: args.url, clock: systemClock, log })
await store.claim()
const engine = createEngine({
  store,
  clock: systemClock,
  log,
  services: { store, clock: systemClock, log } as OperationServices,
  kinds,
  random: () => 0.5,
  leaseMs: 1_000,
  crashPoint(operation, step, phase) {
    say({ point: { operation, step, phase } })
    const { crash } = args
    if (crash?.operation === operation && crash.step === step && crash.phase === phase) {
      process.kill(process.pid, 'SIGKILL')
      // The signal is on its way; nothing more of this process may happen.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
    }
  },
})
if (args.submit !== null) {
  const input = args.submit
  await store.write((tx) =>
    engine.submit(tx, whole, {
      project: 'p',
      input,
      resourceType: 'sample',
      resourceId: 'one',
    }),
  )
}
engine.start()
for (const { id } of await engine.list({ resourceType: 'sample' })) {
  const operation = await engine.waitFor(id)
  say({ operation })
}
await engine.stop()
await store.close()
