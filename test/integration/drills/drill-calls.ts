import assert from 'node:assert/strict'
import { createPublicKey } from 'node:crypto'
import {
  requestSubnet,
  requestVpc,
} from '#control/operations/definitions/networks/network-requests.ts'
import { findReport, listReports } from '#control/resources/drills.ts'
import { chainProblems, openReport, type SealedReport } from '#wire/reports/sealed.ts'
import type { instanceLab } from '../../support/instance-lab.ts'
import { PROJECT, type Region, type Reply } from '../../support/region.ts'

export const DRILLS = '/v1/{project}/disaster-recovery-drills'

/** Where drills are made: the region, and the group that they rehearse. */
export interface DrillGround {
  readonly region: Region
  readonly group: string
}

export type DrillCalls = ReturnType<typeof drillCalls>

/** `of`: when both are there. */
export function drillCalls(lab: ReturnType<typeof instanceLab>, of: () => DrillGround) {
  const wish = (over: object = {}) => ({
    disaster_recovery_drill: { server_group_id: of().group, name: 'drill', ...over },
  })
  const make = async (over: object = {}): Promise<string> => {
    const job = await of().region.job('POST', DRILLS, wish(over))
    assert.equal(job.job_type, 'createDisasterRecoveryDrill')
    assert.equal(job.entities.server_group_id, of().group)
    return job.entities.disaster_recovery_drill_id as string
  }
  const end = async (id: string): Promise<void> => {
    const job = await of().region.job('DELETE', `${DRILLS}/${id}`)
    assert.equal(job.job_type, 'deleteDisasterRecoveryDrill')
    assert.equal(job.entities.disaster_recovery_drill_id, id)
  }
  const show = async (id: string): Promise<Reply['body']> =>
    (await of().region.ok('GET', `${DRILLS}/${id}`)).disaster_recovery_drill

  const services = () => lab.services()
  async function network(cidr: string): Promise<string> {
    const wanted = { project: PROJECT, name: 'apart', description: '', cidr }
    const outcome = await requestVpc(services(), wanted)
    assert.ok(outcome.ok)
    return outcome.vpc.id
  }
  async function subnet(vpc: string, name: string, cidr: string, gateway: string) {
    const wanted = { project: PROJECT, vpc, name, description: '', cidr, gateway, dhcp: true }
    const outcome = await requestSubnet(services(), { ...wanted, dns: [], az: null })
    assert.ok(outcome.ok, JSON.stringify(outcome))
    return outcome.subnet
  }

  const refused = async (over: object, code: string) =>
    await lab.refused('POST', DRILLS, wish(over), code)

  async function reports(drill: string): Promise<SealedReport[]> {
    const { db } = of().region.plane.store
    const keys = [createPublicKey(of().region.plane.services.reports.publicKey())]
    const found: SealedReport[] = []
    for (const { ordinal } of await listReports(db, PROJECT, { limit: 100 })) {
      const row = await findReport(db, PROJECT, { ordinal })
      const opened = openReport(Buffer.from(row?.document ?? ''), keys)
      assert.ok(opened.ok, JSON.stringify(opened))
      found.push(opened.sealed)
    }
    assert.deepEqual(chainProblems(found), [])
    return found.filter(({ report }) => report.drill.id === drill)
  }

  return { of, wish, make, end, show, services, network, subnet, refused, reports }
}
