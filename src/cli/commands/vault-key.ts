import type { Command } from 'commander'
import type { CommandContext } from '../context.ts'
import { columns } from '../output.ts'
import { usageError } from '../usage.ts'
import { keyFileIn, passphraseIn, vaultAction, type VaultFlags, vaultLeaf } from './vault-open.ts'

/* `holdfast vault key`: who can open the vault. */

export function vaultKeyCommand(key: Command, context: CommandContext): void {
  key.description('who can open the vault')
  const leaf = (name: string) => vaultLeaf(context, key, name)

  const list = leaf('list').description('list the key slots')
  vaultAction(context, list, async (vault, output) => {
    const slots = await vault.keys()
    output.result(
      { keys: slots.map(({ id, kind, label, created }) => ({ id, kind, label, created })) },
      columns(
        ['id', 'kind', 'label', 'made'],
        slots.map((slot) => [slot.id, slot.kind, slot.label, slot.created]),
      ),
    )
  })
  const add = leaf('add')
    .description('add a passphrase or key file')
    .option('--new-passphrase-file <file>', 'its first line')
    .option('--new-key-file <file>', 'at least 32 random bytes')
    .option('--label <text>', 'whose or what it is', '')
  vaultAction<VaultFlags & { newPassphraseFile?: string; newKeyFile?: string; label: string }>(
    context,
    add,
    async (vault, output, flags) => {
      const { newPassphraseFile, newKeyFile, label } = flags
      if ((newPassphraseFile === undefined) === (newKeyFile === undefined)) {
        throw usageError('either --new-passphrase-file or --new-key-file is required')
      }
      const secret =
        newKeyFile === undefined
          ? await passphraseIn(newPassphraseFile ?? '')
          : await keyFileIn(newKeyFile)
      const slot = await vault.addKey(secret, { label })
      output.result({ event: 'key_added', id: slot.id }, `key ${slot.id} added`)
    },
  )
  const remove = leaf('remove').description('remove a key slot').argument('<key>')
  vaultAction(context, remove, async (vault, output, _flags, id) => {
    await vault.removeKey(id)
    output.result({ event: 'key_removed', id }, `key ${id} removed`)
  })
  const rotate = leaf('rotate').description('use a new data key from the next backup on')
  vaultAction(context, rotate, async (vault, output) => {
    await vault.rotateDataKey()
    output.result({ event: 'key_rotated' }, 'the next backup uses a new data key')
  })
}
