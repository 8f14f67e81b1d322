import Type, { type Static } from 'typebox'
import { setTypeLimits, typeLimits } from '#control/resources/volume-limits.ts'
import { listVolumeTypes } from '#control/resources/volumes.ts'
import type { VolumeTypeRow } from '#control/store/tables/resources.ts'
import {
  IOPS_MAX,
  MIBPS_MAX,
  type TypeLimits,
  type TypeRate,
  VOLUME_TYPES,
} from '#domain/volume-type.ts'
import { VOLUME_GB_MAX } from '#domain/volume.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget } from '../http/request.ts'
import { refuse } from './errors.ts'
import { describe, nullable } from './route.ts'
import type { NativeServices } from './services.ts'

/** What volumes of each type may do per second. One region has one table; administrators of the domain change it. */
const rate = (unit: string, most: number) =>
  nullable(
    Type.Object(
      {
        base: Type.Number({ minimum: 0, maximum: most }),
        per_gb: Type.Number({ minimum: 0, maximum: most }),
        max: nullable(Type.Number({ exclusiveMinimum: 0, maximum: most })),
      },
      { description: `${unit}: base + per_gb * size in GB, and never more than max.` },
    ),
  )
const Limits = Type.Object({
  iops: rate('Requests per second', IOPS_MAX),
  mib_per_second: rate('MiB per second', MIBPS_MAX),
})
const TypeView = Type.Object({
  id: Type.String(),
  name: Type.String(),
  rank: Type.Integer({ description: 'A volume is moved to a type of a higher rank only.' }),
  limits: Limits,
  usual: Limits,
})

type LimitsView = Static<typeof Limits>
type RateView = LimitsView['iops']

export function volumeTypeRoutes(app: Api, services: NativeServices): void {
  const { store } = services
  app.get(
    '/api/v1/volume-types',
    {
      config: { access: 'user' },
      schema: describe(
        'List types of volumes: what is set, and what providers usually set',
        'volumes',
        Type.Object({ volume_types: Type.Array(TypeView) }),
        {},
      ),
    },
    async () => ({ volume_types: (await listVolumeTypes(store.db)).map(view).sort(byRank) }),
  )
  app.put(
    '/api/v1/volume-types/:name',
    {
      config: { access: 'administrator', audit: 'volume-type.limit' },
      schema: describe(
        'Set what volumes of a type may do per second; null lifts a limit. In force at every volume within seconds',
        'volumes',
        TypeView,
        { params: Type.Object({ name: Type.String({ maxLength: 64 }) }), body: Limits },
      ),
    },
    async (request) => {
      const { name } = request.params
      auditTarget(request, name)
      const limits = limitsOf(request.body)
      for (const one of [limits.iops, limits.mibps]) refuseNothing(one)
      if (!(await store.write((tx) => setTypeLimits(tx, name, limits)))) {
        throw refuse(404, 'VOLUME_TYPE_UNKNOWN', 'There is no such type.', 'List the types.')
      }
      const row = (await listVolumeTypes(store.db)).find((one) => one.name === name)
      if (row === undefined) throw new Error(`type ${name} is gone`)
      return view(row)
    },
  )
}

/** A limit of zero would stop every volume of the type, and its servers with it. */
function refuseNothing(one: TypeRate | null): void {
  if (one === null || one.base + one.perGb * VOLUME_GB_MAX > 0) return
  throw refuse(
    409,
    'LIMIT_IS_NOTHING',
    'Volumes of this type could do nothing at all.',
    'Give base or per_gb a value above 0, or null for no limit.',
  )
}

const rateOf = (one: RateView): TypeRate | null =>
  one === null ? null : { base: one.base, perGb: one.per_gb, max: one.max }

const limitsOf = (one: LimitsView): TypeLimits => ({
  iops: rateOf(one.iops),
  mibps: rateOf(one.mib_per_second),
})

const viewOfRate = (one: TypeRate | null): RateView =>
  one === null ? null : { base: one.base, per_gb: one.perGb, max: one.max }

const viewOf = ({ iops, mibps }: TypeLimits): LimitsView => ({
  iops: viewOfRate(iops),
  mib_per_second: viewOfRate(mibps),
})

function view(row: VolumeTypeRow): Static<typeof TypeView> {
  const rule = VOLUME_TYPES[row.name]
  return {
    id: row.id,
    name: row.name,
    rank: rule?.rank ?? 0,
    limits: viewOf(typeLimits(row)),
    usual: viewOf(rule?.usual ?? { iops: null, mibps: null }),
  }
}

const byRank = (a: { rank: number }, b: { rank: number }): number => a.rank - b.rank
