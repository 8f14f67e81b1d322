import { Worker } from 'node:worker_threads'
import type { Collected } from '#vault/collect/collect.ts'
import type { Vault } from '#vault/vault.ts'
import type { VerifyReport } from '#vault/verify/verify.ts'
import type { VaultPlace } from './region-vault.ts'

/* Work on the vault itself: a collection, a verification. Both decrypt and decompress for as long as the vault is large, so they have a thread of their own:
 * the agent's answers clients. */

export type Errand =
  | { readonly kind: 'collect' }
  | { readonly kind: 'verify'; readonly data: boolean }

export type ErrandResult =
  | { readonly kind: 'collect'; readonly collected: Collected }
  | { readonly kind: 'verify'; readonly report: VerifyReport }

export type ErrandOutcome =
  | { readonly ok: true; readonly result: ErrandResult }
  | { readonly ok: false; readonly code: string; readonly text: string }

/** What a thread said went wrong; faults do not travel. */
export class ErrandFailed extends Error {
  readonly code: string
  constructor(code: string, text: string) {
    super(text)
    this.code = code
  }
}

export async function errandResult(
  vault: Vault,
  errand: Errand,
  signal: AbortSignal,
): Promise<ErrandResult> {
  if (errand.kind === 'collect') {
    return { kind: 'collect', collected: await vault.collect({ signal }) }
  }
  return { kind: 'verify', report: await vault.verify({ data: errand.data, signal }) }
}

/** Rejects with ErrandFailed, or with the signal's reason once the thread has ended by it. */
export function runErrand(
  { place, keyFile, usedFile }: VaultPlace,
  errand: Errand,
  signal: AbortSignal,
): Promise<ErrandResult> {
  signal.throwIfAborted()
  return new Promise((resolve, reject) => {
    const thread = new Worker(new URL('./vault-thread.ts', import.meta.url), {
      workerData: { place, keyFile, usedFile, errand },
    })
    // In order: the lease of a collector is given back.
    const stop = () => thread.postMessage('stop')
    signal.addEventListener('abort', stop, { once: true })
    let outcome: ErrandOutcome | undefined
    let failure: Error | undefined
    thread.on('message', (message: ErrandOutcome) => (outcome = message))
    thread.on('error', (error) => (failure = error))
    thread.on('exit', () => {
      signal.removeEventListener('abort', stop)
      if (outcome?.ok === true) resolve(outcome.result)
      else if (signal.aborted) reject(signal.reason as Error)
      else if (outcome === undefined) {
        reject(failure ?? new Error('a thread of the vault ended without a word'))
      } else reject(new ErrandFailed(outcome.code, outcome.text))
    })
  })
}
