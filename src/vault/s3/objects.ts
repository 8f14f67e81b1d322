import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  PutObjectCommand,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { Fault, isFault } from '#base/fault.ts'
import { OBJECT_MISSING, VAULT_DAMAGED, VAULT_STORE_FAILED } from '../faults.ts'
import {
  asPieces,
  ifPresent,
  type ObjectKey,
  type ObjectStat,
  type Upload,
} from '../object-store.ts'
import { answerUnless, isMissing, type Requests, statusOf } from './requests.ts'

/* Whole objects in and out of a bucket.
 *
 * An answer may be lost when the object is there already. So a put that is asked again, and is told that the key is taken, looks at what lies there: its own bytes are
 * its own put. Nobody else's can be the same where it matters, as everything that is raced for has a random part.
 *
 * Up to 64 MiB an object is one request, and its condition is the server's. Beyond that it goes in parts, of which some servers (Ceph 16) ignore the condition: they
 * are looked for before, and only lists of the collector, whose keys are drawn by chance, ever become that large. */

const PARTS_ABOVE = 64 * 1024 * 1024
/** S3 takes parts of 5 MiB at least, and 10,000 of them. */
const PART_BYTES = 8 * 1024 * 1024
const PARTS_MAX = 10_000
const PARTS_AT_A_TIME = 4

export interface Range {
  readonly offset: number
  readonly length: number
}

export interface Stored {
  /** In buckets that keep versions. */
  readonly version: string | undefined
  /** An earlier attempt may have been carried out as well. */
  readonly again: boolean
}

/** undefined: the condition did not hold, and what lies there is not this body. */
export async function putObject(
  requests: Requests,
  key: ObjectKey,
  body: Uint8Array | readonly Uint8Array[],
  options: { readonly ifAbsent: boolean; readonly partsAbove: number | undefined },
): Promise<Stored | undefined> {
  const pieces = asPieces(body)
  const whole = pieces.length === 1 ? bufferOf(pieces[0] as Uint8Array) : Buffer.concat(pieces)
  if (whole.length > (options.partsAbove ?? PARTS_ABOVE)) {
    return await putParts(requests, key, whole, options.ifAbsent)
  }
  return await requests.ask(`storing ${key}`, key, async (again) => {
    try {
      const { VersionId } = await requests.client.send(
        new PutObjectCommand({
          Bucket: requests.bucket,
          Key: requests.full(key),
          Body: whole,
          ...(options.ifAbsent ? { IfNoneMatch: '*' } : {}),
        }),
      )
      return { version: VersionId, again }
    } catch (error) {
      if (!options.ifAbsent || statusOf(error) !== 412) throw error
      return again && (await holds(requests, key, whole))
        ? { version: undefined, again }
        : undefined
    }
  })
}

const holds = async (requests: Requests, key: ObjectKey, body: Buffer): Promise<boolean> =>
  (await ifPresent(getObject(requests, key, undefined)))?.equals(body) === true

async function putParts(
  requests: Requests,
  key: ObjectKey,
  body: Buffer,
  ifAbsent: boolean,
): Promise<Stored | undefined> {
  const { client, bucket } = requests
  const Key = requests.full(key)
  // Saves sending everything for nothing, where the server looks at all.
  if (ifAbsent && (await isThere(requests, key))) return undefined
  const { UploadId } = await requests.ask(`beginning ${key}`, key, () =>
    client.send(new CreateMultipartUploadCommand({ Bucket: bucket, Key })),
  )
  try {
    const Parts = await sendParts(requests, key, UploadId, body)
    return await requests.ask(`storing ${key}`, key, async (again) => {
      try {
        const { VersionId } = await client.send(
          new CompleteMultipartUploadCommand({
            Bucket: bucket,
            Key,
            UploadId,
            MultipartUpload: { Parts },
            ...(ifAbsent ? { IfNoneMatch: '*' } : {}),
          }),
        )
        return { version: VersionId, again }
      } catch (error) {
        // Completed already: servers say that the upload is unknown, that the key is taken, or that they are at it.
        if (again && (await holds(requests, key, body))) return { version: undefined, again }
        if (!ifAbsent || statusOf(error) !== 412) throw error
        await abort(requests, Key, UploadId)
        return undefined
      }
    })
  } catch (error) {
    await abort(requests, Key, UploadId)
    throw error
  }
}

/** Asked for a byte of it: an error in an answer without a body does not say whether it passes. */
async function isThere(requests: Requests, key: ObjectKey): Promise<boolean> {
  try {
    return (await ifPresent(getObject(requests, key, { offset: 0, length: 1 }))) !== undefined
  } catch (error) {
    if (isFault(error, VAULT_DAMAGED)) return true // it is empty
    throw error
  }
}

interface Part {
  readonly PartNumber: number
  readonly ETag: string | undefined
}

async function sendParts(
  requests: Requests,
  key: ObjectKey,
  UploadId: string | undefined,
  body: Buffer,
): Promise<Part[]> {
  const size = Math.max(PART_BYTES, Math.ceil(body.length / PARTS_MAX))
  const count = Math.ceil(body.length / size)
  const parts: Part[] = []
  let next = 0
  const work = async () => {
    while (next < count) {
      const number = next++
      const PartNumber = number + 1
      const { ETag } = await requests
        .ask(`storing part ${PartNumber} of ${key}`, key, () =>
          requests.client.send(
            new UploadPartCommand({
              Bucket: requests.bucket,
              Key: requests.full(key),
              UploadId,
              PartNumber,
              Body: body.subarray(number * size, (number + 1) * size),
            }),
          ),
        )
        .catch((error: unknown) => {
          next = count
          throw error
        })
      parts[number] = { PartNumber, ETag }
    }
  }
  // All have ended before the upload is aborted: a part that comes later would stay.
  const ends = await Promise.allSettled(Array.from({ length: PARTS_AT_A_TIME }, work))
  for (const end of ends) if (end.status === 'rejected') throw end.reason
  return parts
}

/** An upload that this leaves behind is found by the collector. */
async function abort(requests: Requests, Key: string, UploadId: string | undefined): Promise<void> {
  try {
    const { client, bucket } = requests
    await requests.ask(`aborting ${Key}`, Key, () =>
      client.send(new AbortMultipartUploadCommand({ Bucket: bucket, Key, UploadId })),
    )
  } catch (error) {
    if (!(error instanceof Fault)) throw error
  }
}

/** Uploads that were neither completed nor aborted. */
export async function listUploads(requests: Requests): Promise<Upload[]> {
  const uploads: Upload[] = []
  let at: { readonly KeyMarker?: string; readonly UploadIdMarker?: string } | undefined = {}
  while (at !== undefined) {
    const markers: { readonly KeyMarker?: string; readonly UploadIdMarker?: string } = at
    const page = await requests.ask('listing unfinished uploads', '', () =>
      requests.client.send(
        new ListMultipartUploadsCommand({
          Bucket: requests.bucket,
          Prefix: requests.below(''),
          ...markers,
        }),
      ),
    )
    for (const { Key = '', UploadId, Initiated } of page.Uploads ?? []) {
      uploads.push({
        key: requests.key(Key),
        startedMs: Initiated?.getTime() ?? 0,
        abort: () => abort(requests, Key, UploadId),
      })
    }
    const { NextKeyMarker, NextUploadIdMarker } = page
    if (page.IsTruncated !== true) at = undefined
    else if (NextKeyMarker === undefined || NextUploadIdMarker === undefined) {
      throw brokenList('unfinished uploads', 'it has more and does not say where to go on')
    } else at = { KeyMarker: NextKeyMarker, UploadIdMarker: NextUploadIdMarker }
  }
  return uploads
}

/** A list that is not whole is none: what it lacks would pass for deleted. */
export const brokenList = (what: string, why: string): Fault =>
  new Fault(VAULT_STORE_FAILED, `listing ${what}: the server's answer is not whole: ${why}`)

export async function getObject(
  requests: Requests,
  key: ObjectKey,
  range: Range | undefined,
  VersionId?: string,
): Promise<Buffer> {
  if (range?.length === 0) return Buffer.alloc(0)
  const bytes = await requests.ask(`reading ${key}`, key, async () => {
    try {
      const object = await requests.client.send(
        new GetObjectCommand({
          Bucket: requests.bucket,
          Key: requests.full(key),
          ...(VersionId === undefined ? {} : { VersionId }),
          ...(range === undefined
            ? {}
            : { Range: `bytes=${range.offset}-${range.offset + range.length - 1}` }),
        }),
      )
      return ownBuffer((await object.Body?.transformToByteArray()) ?? new Uint8Array(0))
    } catch (error) {
      if (!isMissing(error)) throw error
      throw new Fault(OBJECT_MISSING, `reading ${key}`, { object: key }, error)
    }
  })
  if (range !== undefined && bytes.length !== range.length) {
    throw new Fault(
      VAULT_DAMAGED,
      `reading ${key}: ${bytes.length} bytes came instead of ${range.length}`,
      { object: key },
    )
  }
  return bytes
}

export async function statObject(
  requests: Requests,
  key: ObjectKey,
): Promise<ObjectStat | undefined> {
  const Key = requests.full(key)
  const head = await requests.ask(`looking at ${key}`, key, () =>
    answerUnless(
      isMissing,
      requests.client.send(new HeadObjectCommand({ Bucket: requests.bucket, Key })),
    ),
  )
  if (head === undefined) return undefined
  if (head.ContentLength === undefined || head.LastModified === undefined) {
    throw brokenList(key, 'size or time is missing')
  }
  return { bytes: head.ContentLength, modifiedMs: head.LastModified.getTime() }
}

/** `VersionId`: of a bucket that keeps versions just this one. One that is absent already is fine. */
export async function deleteObject(
  requests: Requests,
  key: ObjectKey,
  VersionId?: string,
): Promise<void> {
  await requests.ask(`deleting ${key}`, key, () =>
    answerUnless(
      isMissing,
      requests.client.send(
        new DeleteObjectCommand({
          Bucket: requests.bucket,
          Key: requests.full(key),
          ...(VersionId === undefined ? {} : { VersionId }),
        }),
      ),
    ),
  )
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
