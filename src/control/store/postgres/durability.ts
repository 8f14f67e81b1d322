import { sql } from 'kysely'
import { Fault, fault } from '#base/fault.ts'
import type { Queries } from '../store.ts'

/* A witness must not forget. PostgreSQL forgets an acknowledged commit when fsync is off, and when a standby that was not
 * waited for is promoted. Both are seen in its settings, so both are refused at the start. (A promotion that
 * happens all the same is noticed by the identity of the database, and brings the history in doubt.)
 */

export const STORE_NOT_DURABLE = fault({
  code: 'STORE_NOT_DURABLE',
  retry: 'never',
  text: 'The PostgreSQL may lose commits that it has acknowledged, so it cannot hold the state.',
  hint: 'Turn fsync and full_page_writes on, and either list its standbys in synchronous_standby_names or have none.',
})

/** Throws STORE_NOT_DURABLE unless every commit survives a crash, and a promotion of any standby connected now. */
export async function refuseForgetfulPostgres(db: Queries): Promise<void> {
  const { rows: settings } = await sql<{ name: string; setting: string }>`
    select name, setting from pg_settings
    where name in ('fsync', 'full_page_writes', 'synchronous_standby_names')`.execute(db)
  const of = (name: string) => settings.find((row) => row.name === name)?.setting
  const off = ['fsync', 'full_page_writes'].filter((name) => of(name) !== 'on')
  if (off.length > 0) throw new Fault(STORE_NOT_DURABLE, `${off.join(' and ')} is off`)
  // Backups and archivers stream too, but are never promoted. Accounts without pg_monitor see no names: those count.
  const { rows: standbys } = await sql<{ name: string | null }>`
    select application_name as name from pg_stat_replication
    where application_name is null or application_name not in ('pg_basebackup', 'pg_receivewal')`.execute(
    db,
  )
  if (standbys.length > 0 && of('synchronous_standby_names') === '') {
    const names = standbys.map(({ name }) => name ?? 'unnamed').join(', ')
    throw new Fault(STORE_NOT_DURABLE, `commits do not wait for the standby ${names}`)
  }
}
