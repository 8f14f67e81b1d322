import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '#base/system/clock.ts'
import { openDirStore } from '#vault/dir/dir-store.ts'
import type { ObjectStore } from '#vault/object-store.ts'
import { initVault, openVault, type Vault } from '#vault/vault.ts'
import type { BackupOptions } from '#vault/backup/session.ts'

/* What the tests of the vault share: vaults in a temporary directory, images that are made from a seed, and the comparison byte for byte. */

export const BLOCK = 64 * 1024
export const SECRET = { kind: 'passphrase', passphrase: 'correct horse' } as const
/** As cheap as argon2 can be: the tests open many vaults. */
export const CHEAP = { memory_kib: 8, passes: 1, lanes: 1 }

export async function withDirectory<T>(act: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-vault-'))
  try {
    return await act(directory)
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

export const deps = (store: ObjectStore) => ({ store, clock: systemClock })

export async function newVault(store: ObjectStore): Promise<Vault> {
  return await initVault(deps(store), SECRET, { argon: CHEAP })
}

export async function dirVault(directory: string): Promise<Vault> {
  return await newVault(await openDirStore(directory, { create: true }))
}

export async function reopen(directory: string): Promise<Vault> {
  return await openVault(deps(await openDirStore(directory)), SECRET)
}

/** mulberry32: the same numbers for the same seed, on every machine. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

/** Blocks that are zero, random, compressible, or repeat. */
export function makeImage(bytes: number, random: () => number): Buffer {
  const image = Buffer.alloc(bytes)
  for (let at = 0; at < bytes; at += BLOCK) {
    fillBlock(image.subarray(at, Math.min(bytes, at + BLOCK)), random)
  }
  return image
}

export function fillBlock(block: Buffer, random: () => number): void {
  const kind = Math.floor(random() * 4)
  if (kind === 0) block.fill(0)
  else if (kind === 1) for (let i = 0; i < block.length; i += 2) block[i] = random() * 256
  else if (kind === 2) block.fill(`line ${Math.floor(random() * 1e9)}\n`)
  else block.fill(1 + Math.floor(random() * 3))
}

/** Changes about this share of the blocks; answers which. */
export function changeBlocks(image: Buffer, share: number, random: () => number): number[] {
  const changed: number[] = []
  for (let at = 0; at < image.length; at += BLOCK) {
    if (random() >= share) continue
    fillBlock(image.subarray(at, Math.min(image.length, at + BLOCK)), random)
    changed.push(at / BLOCK)
  }
  return changed
}

export interface BackedUp {
  readonly id: string
  readonly image: Buffer
}

/** Backs up the whole image, or only these blocks. */
export async function backUp(
  vault: Vault,
  image: Buffer,
  options: BackupOptions & { readonly volume?: string; readonly blocks?: readonly number[] } = {},
): Promise<BackedUp> {
  const session = await vault.begin({ threads: 1, ...options })
  try {
    const writer = await session.openVolume({
      id: options.volume ?? 'vol',
      sizeBytes: image.length,
    })
    if (options.blocks === undefined) await writer.write(0, image)
    else {
      for (const block of options.blocks) {
        const at = block * BLOCK
        await writer.write(at, image.subarray(at, Math.min(image.length, at + BLOCK)))
      }
    }
    await writer.finish()
    const { id } = await session.commit()
    return { id, image: Buffer.from(image) }
  } finally {
    await session.abandon()
  }
}

export async function restoreImage(vault: Vault, id: string, volume = 'vol'): Promise<Buffer> {
  const checkpoint = await vault.checkpoint(id)
  const size = checkpoint.manifest.volumes.find((one) => one.id === volume)?.sizeBytes ?? 0
  const image = Buffer.alloc(size)
  await checkpoint.restore(
    volume,
    {
      async write(offset, data) {
        data.copy(image, offset)
      },
    },
    { threads: 1 },
  )
  return image
}

export async function assertRestores(vault: Vault, { id, image }: BackedUp): Promise<void> {
  const restored = await restoreImage(vault, id)
  assert.ok(restored.equals(image), `checkpoint ${id} is restored byte for byte`)
}

export async function assertWhole(vault: Vault): Promise<void> {
  const report = await vault.verify({ data: true })
  assert.deepEqual(report.damage, [])
  assert.deepEqual(report.affected, [])
}

export const keysOf = async (store: ObjectStore, prefix = ''): Promise<string[]> => {
  const keys: string[] = []
  for await (const { key } of store.list(prefix)) keys.push(key)
  return keys.toSorted()
}
