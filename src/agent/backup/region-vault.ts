import { readFile } from 'node:fs/promises'
import type { Clock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { VAULT_EXISTS, VAULT_MISSING } from '#vault/faults.ts'
import { KEY_FILE_BYTES_MAX, KEY_FILE_BYTES_MIN, type VaultSecret } from '#vault/keys/slots.ts'
import type { ObjectStore } from '#vault/object-store.ts'
import { openStore } from '#vault/open-store.ts'
import { initVault, openVault, type Vault } from '#vault/vault.ts'
import { NO_VAULT } from './faults.ts'

/* The vault of the region, which its agents share. Made when it is first needed and not there. */

export interface RegionVaultParts {
  /** A directory or s3://BUCKET/PREFIX. */
  readonly place: string
  readonly keyFile: string
  /** Of the process: the access key of a bucket. */
  readonly env: Readonly<Record<string, string | undefined>>
  readonly clock: Clock
  readonly log: Log
}

export interface RegionVault {
  /**
   * The vault with the keys that it has now: another agent may have added some since the last call, so each piece of work asks anew.
   * Throws NO_VAULT, VAULT_KEY_WRONG, VAULT_DAMAGED, VAULT_STORE_FAILED.
   */
  open(): Promise<Vault>
  close(): void
}

export function regionVault(parts: RegionVaultParts): RegionVault {
  const { place, keyFile, env, clock, log } = parts
  let store: Promise<ObjectStore> | undefined

  async function theStore(): Promise<ObjectStore> {
    store ??= openStore(place, env, clock, { create: true })
    try {
      return await store
    } catch (error) {
      store = undefined
      throw error
    }
  }

  async function secret(): Promise<VaultSecret> {
    let content: Buffer
    try {
      content = await readFile(keyFile)
    } catch (error) {
      throw new Fault(NO_VAULT, `reading the key file ${keyFile}`, {}, error)
    }
    if (content.length >= KEY_FILE_BYTES_MIN && content.length <= KEY_FILE_BYTES_MAX) {
      return { kind: 'key-file', content }
    }
    throw new Fault(
      NO_VAULT,
      `reading the key file ${keyFile}: it has ${content.length} bytes, and not ${KEY_FILE_BYTES_MIN} to ${KEY_FILE_BYTES_MAX}`,
    )
  }

  async function make(key: VaultSecret): Promise<Vault> {
    const deps = { store: await theStore(), clock }
    try {
      const vault = await initVault(deps, key, { label: 'region' })
      log.info({ place, vault: vault.header.id }, 'made the vault of the region')
      return vault
    } catch (error) {
      // Another agent was faster.
      if (!isFault(error, VAULT_EXISTS)) throw error
      return await openVault(deps, key)
    }
  }

  return {
    async open() {
      const key = await secret()
      try {
        return await openVault({ store: await theStore(), clock }, key)
      } catch (error) {
        if (!isFault(error, VAULT_MISSING)) throw error
        return await make(key)
      }
    },
    close() {
      store?.then(
        (opened) => opened.close(),
        () => undefined,
      )
    },
  }
}
