import type { Command } from 'commander'
import {
  listVolumeTypes,
  type Rate,
  setVolumeType,
  type TypeLimits,
  type VolumeType,
} from '#client/volume-types.ts'
import type { CommandContext } from '../context.ts'
import { columns } from '../output.ts'
import { apiAction, apiLeaf } from '../session.ts'
import { usageError } from '../usage.ts'

/* `holdfast volume-type`: what volumes of a type may do per second. */

const RATE = /^(\d+(?:\.\d+)?)(?:\+(\d+(?:\.\d+)?)\/GB)?(?:,max=(\d+(?:\.\d+)?))?$/i
const HOW = 'BASE, or BASE+PER/GB, or BASE+PER/GB,max=MOST; none lifts the limit'

export function volumeTypeCommand(command: Command, context: CommandContext): void {
  command.description('types of volumes: what a volume of each may do per second')
  const leaf = (name: string) => apiLeaf(context, command, name)

  apiAction(
    context,
    leaf('list').description('list the types and their limits'),
    async (api, output) => {
      const types = await listVolumeTypes(api)
      output.result({ volume_types: types }, table(types))
    },
  )

  const set = leaf('set')
    .description('set the limits of a type, for all its volumes, while they are used')
    .argument('<type>')
    .option('--iops <rate>', `requests per second: ${HOW}`)
    .option('--mibps <rate>', `MiB per second: ${HOW}`)
    .option('--usual', 'take what providers usually set for a type of this name')
    .option('--unlimited', 'lift both limits')
  apiAction<{ iops?: string; mibps?: string; usual?: boolean; unlimited?: boolean }>(
    context,
    set,
    async (api, output, flags, name = '') => {
      const before = (await listVolumeTypes(api)).find((one) => one.name === name)
      if (before === undefined) throw usageError(`there is no type ${name}`)
      const changed = await setVolumeType(api, name, wanted(before, flags))
      output.result(changed, table([changed]))
    },
  )
}

function wanted(
  { limits, usual }: VolumeType,
  flags: { iops?: string; mibps?: string; usual?: boolean; unlimited?: boolean },
): TypeLimits {
  const { iops, mibps } = flags
  const given = [flags.usual, flags.unlimited, iops ?? mibps].filter((one) => one !== undefined)
  if (given.length !== 1) {
    throw usageError('give --iops, --mibps or both; or --usual; or --unlimited')
  }
  if (flags.usual === true) return usual
  if (flags.unlimited === true) return { iops: null, mib_per_second: null }
  return {
    iops: iops === undefined ? limits.iops : parseRate('--iops', iops),
    mib_per_second: mibps === undefined ? limits.mib_per_second : parseRate('--mibps', mibps),
  }
}

function parseRate(flag: string, text: string): Rate | null {
  if (text === 'none') return null
  const [, base, perGb, max] = RATE.exec(text) ?? []
  if (base === undefined) throw usageError(`${flag} ${text}: ${HOW}`)
  return {
    base: Number(base),
    per_gb: Number(perGb ?? 0),
    max: max === undefined ? null : Number(max),
  }
}

const show = (rate: Rate | null): string => {
  if (rate === null) return 'unlimited'
  const grown = rate.per_gb === 0 ? `${rate.base}` : `${rate.base}+${rate.per_gb}/GB`
  return rate.max === null ? grown : `${grown},max=${rate.max}`
}

const table = (types: readonly VolumeType[]): string[] =>
  columns(
    ['type', 'iops', 'MiB/s', 'usual iops', 'usual MiB/s'],
    types.map(({ name, limits, usual }) => [
      name,
      show(limits.iops),
      show(limits.mib_per_second),
      show(usual.iops),
      show(usual.mib_per_second),
    ]),
  )
