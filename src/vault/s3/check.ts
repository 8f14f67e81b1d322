import { GetObjectLockConfigurationCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { Fault } from '#base/fault.ts'
import { VAULT_STORE_UNFIT } from '../faults.ts'
import type { ObjectStore } from '../object-store.ts'
import { answerUnless, isMissing, type Requests, statusOf } from './requests.ts'

/* What a bucket must be able to do, tried before anything is built on it. */

/** Nothing of the vault: a conditional put of it fails, on a server that can be used. */
export const TRIAL = 'tmp/condition'

export interface S3Store extends ObjectStore {
  /** Throws VAULT_STORE_UNFIT when the bucket cannot keep a vault. Done before the first conditional put, at the latest. */
  check(): Promise<void>
}

/** Until it has succeeded. */
export function once(act: () => Promise<void>): () => Promise<void> {
  let done: Promise<void> | undefined
  return async () => {
    done ??= act().catch((error: unknown) => {
      done = undefined
      throw error
    })
    await done
  }
}

/** The first process of all makes the object, and tries once more. */
export async function tryCondition(requests: Requests, name: string): Promise<void> {
  const put = () =>
    requests.ask('trying a conditional put', TRIAL, () =>
      answerUnless(
        (error) => statusOf(error) === 412,
        requests.client.send(
          new PutObjectCommand({
            Bucket: requests.bucket,
            Key: requests.full(TRIAL),
            Body: new Uint8Array(0),
            IfNoneMatch: '*',
          }),
        ),
      ),
    )
  if ((await put()) === undefined) return
  const second = await put()
  if (second === undefined) return
  const versions = second.VersionId === undefined ? '' : ' in a bucket that keeps versions'
  throw new Fault(
    VAULT_STORE_UNFIT,
    `using ${name}: the server overwrites an object although it was told not to (If-None-Match: *)${versions}`,
  )
}

export async function checkLock(requests: Requests, name: string): Promise<void> {
  const found = await requests.ask('looking at the lock of the bucket', '', () =>
    answerUnless(
      (error) => isMissing(error) || statusOf(error) === 400,
      requests.client.send(new GetObjectLockConfigurationCommand({ Bucket: requests.bucket })),
    ),
  )
  const { ObjectLockEnabled, Rule } = found?.ObjectLockConfiguration ?? {}
  if (ObjectLockEnabled !== 'Enabled') {
    throw new Fault(VAULT_STORE_UNFIT, `using ${name}: the bucket was made without object lock`)
  }
  if (Rule?.DefaultRetention !== undefined) {
    // Leases could never be deleted, and nothing would be collected.
    throw new Fault(VAULT_STORE_UNFIT, `using ${name}: the bucket retains every object by default`)
  }
}
