import { readFile, stat } from 'node:fs/promises'
import { type Command, Option } from 'commander'
import { systemClock } from '#base/system/clock.ts'
import { KEY_FILE_BYTES_MAX, KEY_FILE_BYTES_MIN, type VaultSecret } from '#vault/keys/slots.ts'
import { openStore } from '#vault/open-store.ts'
import { openVault, type Vault } from '#vault/vault.ts'
import type { CommandContext } from '../context.ts'
import type { Output } from '../output.ts'
import { usageError } from '../usage.ts'

/* Which vault a command means, and what opens it. */

export interface VaultFlags {
  readonly vault?: string
  readonly passphraseFile?: string
  readonly keyFile?: string
}

const VAULT_VARIABLE = 'HOLDFAST_VAULT'
const PASSPHRASE_VARIABLE = 'HOLDFAST_VAULT_PASSPHRASE'

export function vaultLeaf(context: CommandContext, parent: Command, name: string): Command {
  return context
    .leaf(parent, name)
    .option('--vault <place>', `directory or s3://bucket/prefix (or ${VAULT_VARIABLE})`)
    .addOption(
      new Option(
        '--passphrase-file <file>',
        `its first line opens the vault (or ${PASSPHRASE_VARIABLE})`,
      ),
    )
    .option('--key-file <file>', 'a file whose content opens the vault')
}

/** Runs `act` with the vault that the flags name; what of its keys is damaged is said first. */
export function vaultAction<F extends VaultFlags>(
  context: CommandContext,
  leaf: Command,
  act: (vault: Vault, output: Output, flags: F, argument: string) => Promise<void>,
): void {
  leaf.action(async (...args: unknown[]) => {
    const flags = leaf.opts<F>()
    const output = context.output(leaf)
    const argument = typeof args[0] === 'string' ? args[0] : ''
    const store = await openStore(placeOf(flags, context), context.env, systemClock)
    try {
      const vault = await openVault({ store, clock: systemClock }, await secretOf(flags, context))
      for (const fault of vault.damaged) output.say(`damaged: ${fault.message}`)
      await act(vault, output, flags, argument)
    } finally {
      store.close()
    }
  })
}

export function placeOf(flags: VaultFlags, context: CommandContext): string {
  const place = flags.vault ?? context.env[VAULT_VARIABLE]
  if (place === undefined || place === '')
    throw usageError(`--vault or ${VAULT_VARIABLE} is required`)
  return place
}

export async function secretOf(flags: VaultFlags, context: CommandContext): Promise<VaultSecret> {
  if (flags.keyFile !== undefined) return await keyFileIn(flags.keyFile)
  if (flags.passphraseFile !== undefined) return await passphraseIn(flags.passphraseFile)
  const passphrase = context.env[PASSPHRASE_VARIABLE]
  if (passphrase !== undefined && passphrase !== '') return { kind: 'passphrase', passphrase }
  throw usageError(`--passphrase-file, --key-file or ${PASSPHRASE_VARIABLE} is required`)
}

export async function passphraseIn(file: string): Promise<VaultSecret> {
  const passphrase = (await readFile(file, 'utf8')).split(/\r?\n/)[0] ?? ''
  if (passphrase === '') throw usageError(`${file} has no first line`)
  return { kind: 'passphrase', passphrase }
}

export async function keyFileIn(file: string): Promise<VaultSecret> {
  const { size } = await stat(file)
  if (size < KEY_FILE_BYTES_MIN || size > KEY_FILE_BYTES_MAX) {
    throw usageError(
      `a key file has ${KEY_FILE_BYTES_MIN} to ${KEY_FILE_BYTES_MAX} bytes, ${file} ${size}`,
    )
  }
  return { kind: 'key-file', content: await readFile(file) }
}
