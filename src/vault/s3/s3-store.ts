import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  PutObjectRetentionCommand,
  S3Client,
  S3ServiceException,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { assert } from '#base/assert.ts'
import { Fault } from '#base/fault.ts'
import { OBJECT_MISSING, VAULT_STORE_FAILED, VAULT_DAMAGED } from '../faults.ts'
import {
  asPieces,
  isObjectKey,
  type ListedObject,
  type ObjectKey,
  type ObjectStore,
  totalBytes,
} from '../object-store.ts'

/* A vault in an S3 bucket. Relied on: read-after-write for get and list, and `If-None-Match: *` on PutObject and CompleteMultipartUpload. A server that
 * ignores the condition lets two writers believe that both have won, and is not fit for a vault; nothing here finds that out at run time. */

/** Objects above this go in parts, several at a time. */
const PART_BYTES = 8 * 1024 * 1024
const PARTS_AT_A_TIME = 4

export interface S3Address {
  readonly bucket: string
  /** Without slash at its ends; may be empty. */
  readonly prefix: string
  readonly endpoint?: string
  readonly region: string
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string
  /** The bucket was made with object lock, and locks are to be kept by the server as well. */
  readonly objectLock?: boolean
}

export function createS3Store(address: S3Address): ObjectStore {
  const { bucket } = address
  const client = new S3Client({
    region: address.region,
    forcePathStyle: address.endpoint !== undefined,
    ...(address.endpoint === undefined ? {} : { endpoint: address.endpoint }),
    credentials: {
      accessKeyId: address.accessKeyId,
      secretAccessKey: address.secretAccessKey,
      ...(address.sessionToken === undefined ? {} : { sessionToken: address.sessionToken }),
    },
  })
  const full = (key: ObjectKey): string => {
    assert(isObjectKey(key), `${key} is an object key`)
    return address.prefix === '' ? key : `${address.prefix}/${key}`
  }

  async function putParts(key: ObjectKey, body: Buffer, ifAbsent: boolean): Promise<void> {
    const Key = full(key)
    const { UploadId } = await client.send(
      new CreateMultipartUploadCommand({ Bucket: bucket, Key }),
    )
    try {
      const count = Math.ceil(body.length / PART_BYTES)
      const parts: { PartNumber: number; ETag: string | undefined }[] = []
      let next = 0
      const work = async () => {
        while (next < count) {
          const number = next++
          const Body = body.subarray(number * PART_BYTES, (number + 1) * PART_BYTES)
          const PartNumber = number + 1
          const { ETag } = await client.send(
            new UploadPartCommand({ Bucket: bucket, Key, UploadId, PartNumber, Body }),
          )
          parts[number] = { PartNumber, ETag }
        }
      }
      await Promise.all(Array.from({ length: PARTS_AT_A_TIME }, work))
      await client.send(
        new CompleteMultipartUploadCommand({
          Bucket: bucket,
          Key,
          UploadId,
          MultipartUpload: { Parts: parts },
          ...(ifAbsent ? { IfNoneMatch: '*' } : {}),
        }),
      )
    } catch (error) {
      // Parts of an upload that is not aborted are paid for until the bucket's own rules remove them.
      await client
        .send(new AbortMultipartUploadCommand({ Bucket: bucket, Key, UploadId }))
        .catch(() => undefined)
      throw error
    }
  }

  async function stat(key: ObjectKey) {
    try {
      const head = await client.send(new HeadObjectCommand({ Bucket: bucket, Key: full(key) }))
      return { bytes: head.ContentLength ?? 0, modifiedMs: head.LastModified?.getTime() ?? 0 }
    } catch (error) {
      if (isMissing(error)) return undefined
      throw failed(`looking at ${key}`, key, error)
    }
  }

  async function* list(prefix: string): AsyncGenerator<ListedObject> {
    const begin = address.prefix === '' ? '' : `${address.prefix}/`
    let token: string | undefined
    do {
      const page = await client
        .send(
          new ListObjectsV2Command({
            Bucket: bucket,
            Prefix: `${begin}${prefix}`,
            ...(token === undefined ? {} : { ContinuationToken: token }),
          }),
        )
        .catch((error: unknown) => {
          throw failed(`listing ${prefix}`, prefix, error)
        })
      for (const object of page.Contents ?? []) {
        yield {
          key: (object.Key ?? '').slice(begin.length),
          bytes: object.Size ?? 0,
          modifiedMs: object.LastModified?.getTime() ?? 0,
        }
      }
      token = page.IsTruncated === true ? page.NextContinuationToken : undefined
    } while (token !== undefined)
  }

  const store: ObjectStore = {
    name: `s3://${bucket}/${address.prefix}`,
    stat,
    list,
    async put(key, body, { ifAbsent = false } = {}) {
      const pieces = asPieces(body)
      const whole = pieces.length === 1 ? bufferOf(pieces[0] as Uint8Array) : Buffer.concat(pieces)
      try {
        if (totalBytes(pieces) > PART_BYTES) {
          // The condition is checked at the end; this saves sending everything for nothing.
          if (ifAbsent && (await stat(key)) !== undefined) return false
          await putParts(key, whole, ifAbsent)
        } else {
          await client.send(
            new PutObjectCommand({
              Bucket: bucket,
              Key: full(key),
              Body: whole,
              ...(ifAbsent ? { IfNoneMatch: '*' } : {}),
            }),
          )
        }
        return true
      } catch (error) {
        if (ifAbsent && isConflict(error)) {
          // 409: another put of the same key was under way; it is decided when it is there.
          if ((await stat(key)) !== undefined) return false
        }
        throw failed(`storing ${key}`, key, error)
      }
    },
    async get(key, range) {
      if (range?.length === 0) return Buffer.alloc(0)
      let bytes: Buffer
      try {
        const object = await client.send(
          new GetObjectCommand({
            Bucket: bucket,
            Key: full(key),
            ...(range === undefined
              ? {}
              : { Range: `bytes=${range.offset}-${range.offset + range.length - 1}` }),
          }),
        )
        bytes = ownBuffer((await object.Body?.transformToByteArray()) ?? new Uint8Array(0))
      } catch (error) {
        if (isMissing(error)) {
          throw new Fault(OBJECT_MISSING, `reading ${key}`, { object: key }, error)
        }
        throw failed(`reading ${key}`, key, error)
      }
      if (range !== undefined && bytes.length !== range.length) {
        throw new Fault(VAULT_DAMAGED, `reading ${key}: it is too short`, { object: key })
      }
      return bytes
    },
    async delete(key) {
      try {
        await client.send(new DeleteObjectCommand({ Bucket: bucket, Key: full(key) }))
      } catch (error) {
        if (!isMissing(error)) throw failed(`deleting ${key}`, key, error)
      }
    },
    close() {
      client.destroy()
    },
  }
  if (address.objectLock !== true) return store
  return {
    ...store,
    async retain(key, untilMs) {
      try {
        await client.send(
          new PutObjectRetentionCommand({
            Bucket: bucket,
            Key: full(key),
            // COMPLIANCE: nobody can shorten it, the account's owner included.
            Retention: { Mode: 'COMPLIANCE', RetainUntilDate: new Date(untilMs) },
          }),
        )
      } catch (error) {
        throw failed(`locking ${key}`, key, error)
      }
    },
  }
}

const bufferOf = (bytes: Uint8Array): Buffer =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** In memory of its own, as callers hand it to threads. */
function ownBuffer(bytes: Uint8Array): Buffer {
  if (bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength) return bufferOf(bytes)
  const copy = Buffer.allocUnsafeSlow(bytes.byteLength)
  copy.set(bytes)
  return copy
}

const statusOf = (error: unknown): number | undefined =>
  error instanceof S3ServiceException ? error.$metadata.httpStatusCode : undefined

const isMissing = (error: unknown): boolean =>
  statusOf(error) === 404 && (error as Error).name !== 'NoSuchBucket'
const isConflict = (error: unknown): boolean => [409, 412].includes(statusOf(error) ?? 0)

function failed(doing: string, key: string, error: unknown): Fault {
  if (statusOf(error) === 416) {
    return new Fault(VAULT_DAMAGED, `${doing}: it is too short`, { object: key }, error)
  }
  const text = error instanceof Error ? `${error.name} ${error.message}` : String(error)
  return new Fault(VAULT_STORE_FAILED, `${doing}: ${text}`, { object: key }, error)
}
