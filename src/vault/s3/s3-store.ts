import { ListObjectsV2Command } from '@aws-sdk/client-s3'
import type { ListedObject } from '../object-store.ts'
import { once, type S3Store, TRIAL, tryCondition } from './check.ts'
import { lockStore } from './lock-store.ts'
import {
  brokenList,
  deleteObject,
  getObject,
  listUploads,
  putObject,
  statObject,
} from './objects.ts'
import { createRequests, type Requests, type S3Address, type S3Deps } from './requests.ts'

/* A vault in an S3 bucket. Relied on: read-after-write for get and list, and `If-None-Match: *` on PutObject. A server that ignores the condition lets two writers believe that
 * both have won; so before the first conditional put of a process one is tried of which the outcome is known. */

export type { S3Store } from './check.ts'

export function createS3Store(address: S3Address, deps: S3Deps): S3Store {
  const requests = createRequests(address, deps)
  const name = `s3://${address.bucket}/${address.prefix}`
  if (address.objectLock === true) return lockStore(requests, name, address.partsAbove)
  const check = once(() => tryCondition(requests, name))
  return {
    name,
    check,
    list: (prefix) => list(requests, prefix),
    uploads: () => listUploads(requests),
    async put(key, body, { ifAbsent = false } = {}) {
      if (ifAbsent) await check()
      const { partsAbove } = address
      return (await putObject(requests, key, body, { ifAbsent, partsAbove })) !== undefined
    },
    get: (key, range) => getObject(requests, key, range),
    stat: (key) => statObject(requests, key),
    delete: (key) => deleteObject(requests, key),
    close: () => requests.close(),
  }
}

async function* list(requests: Requests, prefix: string): AsyncGenerator<ListedObject> {
  let token: string | undefined
  do {
    const ContinuationToken = token
    const page = await requests.ask(`listing ${prefix}`, prefix, () =>
      requests.client.send(
        new ListObjectsV2Command({
          Bucket: requests.bucket,
          Prefix: requests.below(prefix),
          ...(ContinuationToken === undefined ? {} : { ContinuationToken }),
        }),
      ),
    )
    for (const { Key, Size, LastModified } of page.Contents ?? []) {
      if (Key === undefined || Size === undefined || LastModified === undefined) {
        throw brokenList(prefix, 'a name, size or time is missing')
      }
      const key = requests.key(Key)
      if (key !== TRIAL) yield { key, bytes: Size, modifiedMs: LastModified.getTime() }
    }
    token = page.IsTruncated === true ? page.NextContinuationToken : undefined
    if (page.IsTruncated === true && (token === undefined || token === ContinuationToken)) {
      throw brokenList(prefix, 'it has more and does not say where to go on')
    }
  } while (token !== undefined)
}
