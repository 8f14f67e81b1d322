import {
  HeadObjectCommand,
  ListObjectVersionsCommand,
  PutObjectRetentionCommand,
} from '@aws-sdk/client-s3'
import { Fault, isFault } from '#base/fault.ts'
import { OBJECT_HELD, OBJECT_MISSING, OBJECT_RETAINED, VAULT_STORE_REFUSED } from '../faults.ts'
import { asPieces, type ListedObject, type ObjectKey, type ObjectStat } from '../object-store.ts'
import { brokenList, deleteObject, getObject, listUploads, putObject } from './objects.ts'
import { checkLock, once, type S3Store, TRIAL } from './check.ts'
import { type Requests, saidAtMs, statusOf } from './requests.ts'

/* A vault in a bucket with object lock, which keeps versions of every object. There an object is its oldest version:
 *
 *   put, if absent   of two versions the older one has won, whether or not the server looks at the condition (Ceph 16 does not, where it keeps versions); the other is deleted
 *   put              versions before it are deleted
 *   delete           all versions are deleted, the oldest last
 *
 * So what somebody puts over an object, or the marker that a plain deletion leaves, changes nothing for its readers, and the oldest version is what retention is
 * set on: not even the owner of the bucket can take it away or make it unreadable before its time. */

interface Version extends ListedObject {
  readonly id: string
  /** What a plain deletion leaves. */
  readonly marker: boolean
}

/** Ids of versions that do not change any more: those of packs, which are read in many pieces. */
const KNOWN_MAX = 100_000

export function lockStore(
  requests: Requests,
  name: string,
  partsAbove: number | undefined,
): S3Store {
  const { client, bucket } = requests
  const check = once(() => checkLock(requests, name))
  const known = new Map<ObjectKey, string>()

  async function versionsOf(key: ObjectKey): Promise<Version[]> {
    const found: Version[] = []
    for await (const version of versions(requests, key)) {
      if (version.key === key) found.push(version)
    }
    return found
  }

  const oldest = async (key: ObjectKey): Promise<Version | undefined> =>
    (await versionsOf(key)).findLast(({ marker }) => !marker)

  function remember({ key, id }: Version): void {
    if (!key.startsWith('packs/')) return
    if (known.size >= KNOWN_MAX) known.clear()
    known.set(key, id)
  }

  async function idOf(key: ObjectKey): Promise<string> {
    const found = known.get(key) ?? (await oldest(key))
    if (found === undefined) throw new Fault(OBJECT_MISSING, `reading ${key}`, { object: key })
    if (typeof found === 'string') return found
    remember(found)
    return found.id
  }

  async function deleteVersion({ key, id }: Version): Promise<void> {
    await deleteObject(requests, key, id).catch(async (error: unknown) => {
      // MinIO answers 400 for a version that is retained.
      const asks = error instanceof Fault && statusOf(error.cause) === 400
      if (!asks && !isFault(error, VAULT_STORE_REFUSED)) throw error
      throw (await kept(key, id, error)) ?? error
    })
  }

  const has = async (key: ObjectKey, { bytes, id }: Version, body: Buffer): Promise<boolean> =>
    bytes === body.length && (await getObject(requests, key, undefined, id)).equals(body)

  /** Whether the object's lock is why it was refused. */
  async function kept(key: ObjectKey, id: string, cause: Fault): Promise<Fault | undefined> {
    const version = { Bucket: bucket, Key: requests.full(key), VersionId: id }
    const head = await requests.ask(`looking at ${key}`, key, () =>
      client.send(new HeadObjectCommand(version)),
    )
    if (head.ObjectLockLegalHoldStatus === 'ON') {
      return new Fault(OBJECT_HELD, `deleting ${key}`, { object: key }, cause)
    }
    const until = head.ObjectLockRetainUntilDate
    // One that had ended by then forbids nothing any more.
    const ended = (until?.getTime() ?? 0) <= (saidAtMs(cause.cause) ?? 0)
    if (until === undefined || ended) return undefined
    const doing = `deleting ${key}, which is kept until ${until.toISOString()}`
    return new Fault(OBJECT_RETAINED, doing, { object: key, untilMs: until.getTime() }, cause)
  }

  return {
    name,
    check,
    uploads: () => listUploads(requests),
    async put(key, body, { ifAbsent = false } = {}) {
      if (ifAbsent) await check()
      const stored = await putObject(requests, key, body, { ifAbsent, partsAbove })
      if (stored === undefined) return false
      // A put that was asked again and found its own bytes, where the server looks at the condition.
      if (stored.version === undefined) return true
      const all = await versionsOf(key)
      const mine = all.find(({ id }) => id === stored.version)
      if (mine === undefined) return true // deleted or replaced since
      if (!ifAbsent) {
        for (const version of all.slice(all.indexOf(mine) + 1)) await deleteVersion(version)
        return true
      }
      const first = all.findLast(({ marker }) => !marker)
      if (first === undefined || first.id === mine.id) return true
      // It may have been left by an earlier attempt of this put, whose answer was lost.
      const ours = stored.again && (await has(key, first, Buffer.concat(asPieces(body))))
      await deleteVersion(mine)
      return ours
    },
    get: async (key, range) => await getObject(requests, key, range, await idOf(key)),
    async stat(key): Promise<ObjectStat | undefined> {
      return await oldest(key)
    },
    async *list(prefix) {
      let last: Version | undefined
      for await (const version of versions(requests, prefix)) {
        if (version.marker || version.key === TRIAL) continue
        if (last !== undefined && last.key !== version.key) {
          remember(last)
          yield last
        }
        last = version
      }
      if (last === undefined) return
      remember(last)
      yield last
    },
    async delete(key) {
      known.delete(key)
      for (const version of await versionsOf(key)) await deleteVersion(version)
    },
    async retain(key, untilMs) {
      await check()
      const VersionId = await idOf(key)
      await requests.ask(`locking ${key}`, key, () =>
        client.send(
          new PutObjectRetentionCommand({
            Bucket: bucket,
            Key: requests.full(key),
            VersionId,
            // COMPLIANCE: nobody can shorten it, the account's owner included.
            Retention: { Mode: 'COMPLIANCE', RetainUntilDate: new Date(untilMs) },
          }),
        ),
      )
    },
    close: () => requests.close(),
  }
}

/** By key, and the newest version of each first. */
async function* versions(requests: Requests, prefix: string): AsyncGenerator<Version> {
  let at: { readonly KeyMarker?: string; readonly VersionIdMarker?: string } | undefined = {}
  while (at !== undefined) {
    const markers: { readonly KeyMarker?: string; readonly VersionIdMarker?: string } = at
    const page = await requests.ask(`listing ${prefix}`, prefix, () =>
      requests.client.send(
        new ListObjectVersionsCommand({
          Bucket: requests.bucket,
          Prefix: requests.below(prefix),
          ...markers,
        }),
      ),
    )
    for (const { Key, VersionId, Size, LastModified } of page.Versions ?? []) {
      const whole = Key !== undefined && VersionId !== undefined && Size !== undefined
      if (!whole || LastModified === undefined) {
        throw brokenList(prefix, 'a name, size or time is missing')
      }
      const modifiedMs = LastModified.getTime()
      yield { key: requests.key(Key), id: VersionId, bytes: Size, modifiedMs, marker: false }
    }
    for (const { Key, VersionId } of page.DeleteMarkers ?? []) {
      if (Key === undefined || VersionId === undefined) continue
      yield { key: requests.key(Key), id: VersionId, bytes: 0, modifiedMs: 0, marker: true }
    }
    const { NextKeyMarker, NextVersionIdMarker } = page
    if (page.IsTruncated !== true) at = undefined
    else if (NextKeyMarker === undefined || NextVersionIdMarker === undefined) {
      throw brokenList(prefix, 'it has more and does not say where to go on')
    } else at = { KeyMarker: NextKeyMarker, VersionIdMarker: NextVersionIdMarker }
  }
}
