import { assert } from '#base/assert.ts'
import { isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { parentPort, workerData } from 'node:worker_threads'
import { type Errand, type ErrandOutcome, errandResult } from './errands.ts'
import { regionVault, type VaultPlace } from './region-vault.ts'

/* Carries out one errand of errands.ts in a thread of its own, and ends. */

const { errand, ...place } = workerData as VaultPlace & { readonly errand: Errand }
const port = parentPort
assert(port !== null, 'this is a thread')
const stop = new AbortController()
port.on('message', () => stop.abort())

async function carryOut(): Promise<ErrandOutcome> {
  const vault = regionVault({
    ...place,
    env: process.env,
    clock: systemClock,
    log: createLog('vault', 'warn'),
  })
  try {
    return { ok: true, result: await errandResult(await vault.open(), errand, stop.signal) }
  } catch (error) {
    const code = isFault(error) ? error.code : 'INTERNAL'
    return { ok: false, code, text: error instanceof Error ? error.message : String(error) }
  } finally {
    vault.close()
  }
}

port.postMessage(await carryOut())
port.close()
