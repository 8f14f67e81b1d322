import { readFile } from 'node:fs/promises'
import type { Clock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { readTextIfPresent, writeFileWhole } from '#base/system/files.ts'
import { VAULT_EXISTS, VAULT_MISSING } from '#vault/faults.ts'
import { KEY_FILE_BYTES_MAX, KEY_FILE_BYTES_MIN, type VaultSecret } from '#vault/keys/slots.ts'
import type { ObjectStore } from '#vault/object-store.ts'
import { openStore } from '#vault/open-store.ts'
import { initVault, openVault, type Vault } from '#vault/vault.ts'
import { NO_VAULT, VAULT_GONE } from './faults.ts'

/* The vault of the region, which its agents share. Made when it is first needed and not there, but never twice: an agent that has used a vault at its place waits for
 * that one, as what holds it may just not be mounted. */

export interface VaultPlace {
  /** A directory or s3://BUCKET/PREFIX. */
  readonly place: string
  readonly keyFile: string
  /** File of this agent that names the vault which it has used there. */
  readonly usedFile: string
}

export interface RegionVaultParts extends VaultPlace {
  /** Of the process: the access key of a bucket. */
  readonly env: Readonly<Record<string, string | undefined>>
  readonly clock: Clock
  readonly log: Log
}

export interface RegionVault {
  /**
   * The vault with the keys that it has now: another agent may have added some since the last call, so each piece of work asks anew.
   * Throws NO_VAULT, VAULT_GONE, VAULT_KEY_WRONG, VAULT_DAMAGED, VAULT_STORE_FAILED.
   */
  open(): Promise<Vault>
  close(): void
}

export function regionVault(parts: RegionVaultParts): RegionVault {
  const { place, keyFile, usedFile, env, clock, log } = parts
  let store: Promise<ObjectStore> | undefined

  async function theStore(create: boolean): Promise<ObjectStore> {
    store ??= openStore(place, env, clock, { create })
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
    const deps = { store: await theStore(true), clock }
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

  /** undefined: none at this place. */
  async function usedId(): Promise<string | undefined> {
    const text = await readTextIfPresent(usedFile)
    if (text === undefined) return undefined
    const used = JSON.parse(text) as { readonly place: string; readonly id: string }
    return used.place === place ? used.id : undefined
  }

  const gone = (what: string): Fault =>
    new Fault(VAULT_GONE, `opening the vault at ${place}: ${what}, as ${usedFile} says`, { place })

  return {
    async open() {
      const key = await secret()
      const used = await usedId()
      let vault: Vault
      try {
        vault = await openVault({ store: await theStore(used === undefined), clock }, key)
      } catch (error) {
        if (!isFault(error, VAULT_MISSING)) throw error
        if (used !== undefined) throw gone(`it was ${used}`)
        vault = await make(key)
      }
      const { id } = vault.header
      if (used !== undefined && used !== id) throw gone(`it was ${used}, and ${id} is there`)
      if (used === undefined) await writeFileWhole(usedFile, JSON.stringify({ place, id }))
      return vault
    },
    close() {
      store?.then(
        (opened) => opened.close(),
        () => undefined,
      )
    },
  }
}
