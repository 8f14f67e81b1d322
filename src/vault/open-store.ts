import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { openDirStore } from './dir/dir-store.ts'
import { STORE_ADDRESS } from './faults.ts'
import type { ObjectStore } from './object-store.ts'

/* A place as people write it: a directory, or s3://BUCKET/PREFIX with the usual AWS_ variables. HOLDFAST_S3_OBJECT_LOCK=1 says that the bucket was made with object
 * lock, and that locks of checkpoints are to be kept by the server as well. */

export async function openStore(
  place: string,
  env: Readonly<Record<string, string | undefined>>,
  clock: Clock,
  options: { readonly create?: boolean } = {},
): Promise<ObjectStore> {
  const match = /^s3:\/\/([^/]+)\/?(.*)$/.exec(place)
  if (match === null) {
    if (/^[a-z][a-z0-9+.-]*:\/\//i.test(place)) throw new Fault(STORE_ADDRESS, `opening ${place}`)
    return await openDirStore(place, { ...options, wallMs: clock.wallMs() })
  }
  const accessKeyId = env['AWS_ACCESS_KEY_ID']
  const secretAccessKey = env['AWS_SECRET_ACCESS_KEY']
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    throw new Fault(STORE_ADDRESS, `opening ${place} without an access key`)
  }
  // The client is large: who keeps a vault in a directory does not wait for it.
  const { createS3Store } = await import('./s3/s3-store.ts')
  const endpoint = env['AWS_ENDPOINT_URL_S3'] ?? env['AWS_ENDPOINT_URL']
  const sessionToken = env['AWS_SESSION_TOKEN']
  const store = createS3Store(
    {
      bucket: match[1] ?? '',
      prefix: (match[2] ?? '').replace(/\/+$/, ''),
      region: env['AWS_REGION'] ?? env['AWS_DEFAULT_REGION'] ?? 'us-east-1',
      accessKeyId,
      secretAccessKey,
      ...(endpoint === undefined ? {} : { endpoint }),
      ...(sessionToken === undefined ? {} : { sessionToken }),
      objectLock: env['HOLDFAST_S3_OBJECT_LOCK'] === '1',
    },
    { clock },
  )
  if (options.create !== true) return store
  try {
    await store.check()
  } catch (error) {
    store.close()
    throw error
  }
  return store
}
