import Type from 'typebox'
import {
  RATE_BYTES_MAX,
  RATE_BYTES_MIN,
  RATE_KINDS,
  readRates,
  setRates,
} from '#control/resources/backup-rates.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget } from '../http/request.ts'
import { describe } from './route.ts'
import type { NativeServices } from './services.ts'

/* How fast backups, restores and copies of this region may move data, for administrators of the domain. */

const PATH = '/api/v1/backup-rates'
const TAG = 'backups'

const Rates = Type.Object({
  rates: Type.Object(
    { backup: Type.Integer(), restore: Type.Integer(), copy: Type.Integer() },
    { description: 'Bytes per second of each piece of work; 0: as fast as it goes.' },
  ),
})
const Rate = Type.Optional(
  Type.Union([Type.Literal(0), Type.Integer({ minimum: RATE_BYTES_MIN, maximum: RATE_BYTES_MAX })]),
)
const Change = Type.Object(
  {
    rates: Type.Object(
      { backup: Rate, restore: Rate, copy: Rate },
      { additionalProperties: false, minProperties: 1 },
    ),
  },
  { additionalProperties: false },
)

export function backupRateRoutes(app: Api, { store }: NativeServices): void {
  app.get(
    PATH,
    {
      config: { access: 'administrator' },
      schema: describe('Show how fast backups, restores and copies may be', TAG, Rates, {}),
    },
    async () => ({ rates: await readRates(store.db) }),
  )

  app.put(
    PATH,
    {
      config: { access: 'administrator', audit: 'backup-rates.set' },
      schema: describe(
        'Say how fast backups, restores and copies may be that begin from now on; kinds that are left out stay',
        TAG,
        Rates,
        { body: Change },
      ),
    },
    async (request) => {
      const { rates } = request.body
      auditTarget(request, RATE_KINDS.filter((kind) => rates[kind] !== undefined).join(','), {
        rates,
      })
      const given = Object.fromEntries(
        RATE_KINDS.flatMap((kind) => (rates[kind] === undefined ? [] : [[kind, rates[kind]]])),
      )
      return {
        rates: await store.write(async (tx) => {
          await setRates(tx, given)
          return await readRates(tx)
        }),
      }
    },
  )
}
