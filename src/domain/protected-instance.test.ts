import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  batchName,
  decideInstance,
  INSTANCE_MOVES,
  INSTANCE_STATUSES,
  type InstanceCommandKind,
  type InstanceFacts,
  type InstanceRefusal,
  type InstanceStatus,
  identityMoves,
  instanceFollowsGroup,
  isInstanceStatus,
  pairNameFor,
  restingInstanceStatus,
  shownInstanceStatus,
} from './protected-instance.ts'
import { GROUP_STATUSES, GROUP_TRANSIENT, type GroupStatus } from './protection-group.ts'
import { PAIR_STATUSES, restingPairStatus } from './replication-pair.ts'
import { isName } from './text.ts'

const facts = (over: Partial<InstanceFacts>): InstanceFacts => ({
  status: 'available',
  group: 'available',
  station: 'source',
  ownPairs: [],
  ...over,
})

/** The published table, written down once more: states and groups that allow the action, and the code of each refusal. */
const TABLE: Record<
  InstanceCommandKind,
  {
    readonly instances: string
    readonly groups: string
    readonly state: InstanceRefusal
    readonly group: InstanceRefusal
  }
> = {
  delete: {
    instances:
      'available protected failed-over error error-starting error-stopping error-reversing error-failing-over error-deleting error-reprotecting error-resizing invalid fault',
    // The last one is no state of the groups that have instances.
    groups:
      'available protected failed-over error error-starting error-stopping error-reversing error-failing-over error-deleting error-reprotecting error-updating',
    state: 'INSTANCE_DELETE_STATE',
    group: 'INSTANCE_DELETE_GROUP_STATE',
  },
  'add-nic': {
    instances: 'available protected',
    groups: 'available protected',
    state: 'INSTANCE_NIC_STATE',
    group: 'INSTANCE_GROUP_STATE',
  },
  'delete-nic': {
    instances: 'available protected',
    groups: 'available protected',
    state: 'INSTANCE_NIC_STATE',
    group: 'INSTANCE_GROUP_STATE',
  },
  resize: {
    instances: 'available protected error-resizing',
    groups: 'available protected',
    state: 'INSTANCE_STATE',
    group: 'INSTANCE_GROUP_STATE',
  },
  attach: {
    instances: 'available protected',
    groups: 'available protected',
    state: 'INSTANCE_STATE',
    group: 'INSTANCE_GROUP_STATE',
  },
  detach: {
    instances:
      'available protected failed-over error-starting error-stopping error-reversing error-failing-over error-deleting error-reprotecting error-resizing invalid fault',
    groups:
      'available protected failed-over error-starting error-stopping error-reversing error-failing-over',
    state: 'INSTANCE_STATE',
    group: 'INSTANCE_GROUP_STATE',
  },
  'add-tags': {
    instances: INSTANCE_STATUSES.filter(
      (status) => !['creating', 'deleting', 'error'].includes(status),
    ).join(' '),
    groups: GROUP_STATUSES.join(' '),
    state: 'INSTANCE_ADD_TAGS_STATE',
    group: 'INSTANCE_GROUP_STATE',
  },
  'delete-tags': {
    instances: INSTANCE_STATUSES.filter(
      (status) => !['creating', 'deleting', 'error'].includes(status),
    ).join(' '),
    groups: GROUP_STATUSES.join(' '),
    state: 'INSTANCE_DELETE_TAGS_STATE',
    group: 'INSTANCE_GROUP_STATE',
  },
  rename: {
    instances: INSTANCE_STATUSES.join(' '),
    groups: GROUP_STATUSES.join(' '),
    state: 'INSTANCE_STATE',
    group: 'INSTANCE_GROUP_STATE',
  },
}

test('every action is allowed in exactly the published states, and refused with its own reason elsewhere', () => {
  for (const [name, row] of Object.entries(TABLE)) {
    const kind = name as InstanceCommandKind
    for (const status of INSTANCE_STATUSES) {
      for (const group of GROUP_STATUSES) {
        const command =
          kind === 'delete' ? { kind, deleteTargetServer: false } : ({ kind } as const)
        const decision = decideInstance(facts({ status, group }), command)
        const where = `${kind} of ${status} in ${group}`
        const stateOk = row.instances.split(' ').includes(status)
        const groupOk = row.groups.split(' ').includes(group)
        assert.equal(decision.ok, stateOk && groupOk, where)
        if (decision.ok) continue
        assert.equal(decision.refusal, stateOk ? row.group : row.state, where)
      }
    }
  }
})

test('what an allowed action leads to is a legal move from every stored state', () => {
  const stored = INSTANCE_STATUSES.filter((status) => INSTANCE_MOVES[status].length > 0)
  for (const kind of Object.keys(TABLE) as InstanceCommandKind[]) {
    for (const status of stored) {
      const command = kind === 'delete' ? { kind, deleteTargetServer: false } : ({ kind } as const)
      const decision = decideInstance(facts({ status }), command)
      if (!decision.ok || decision.via === null) continue
      assert.ok(INSTANCE_MOVES[status].includes(decision.via), `${kind}: ${status}`)
    }
  }
})

test('every state of the tables is one, each but the shown ones can be left, and none leads to itself', () => {
  assert.equal(INSTANCE_STATUSES.length, 23)
  for (const [from, targets] of Object.entries(INSTANCE_MOVES)) {
    const shownOnly = from === 'invalid' || from === 'fault'
    assert.equal(targets.length === 0, shownOnly, from)
    for (const to of targets) {
      assert.ok(isInstanceStatus(to))
      assert.notEqual(to, from)
    }
  }
  assert.ok(!isInstanceStatus('gone') && !isInstanceStatus('toString') && !isInstanceStatus(null))
})

test('an instance that follows its group may move wherever the group does', () => {
  for (const status of INSTANCE_STATUSES) {
    if (!instanceFollowsGroup(status) || INSTANCE_MOVES[status].length === 0) continue
    const transient = GROUP_TRANSIENT.has(status as GroupStatus)
    for (const via of ['starting', 'stopping', 'reversing', 'failing-over', 'reprotecting']) {
      const legal = INSTANCE_MOVES[status].includes(via as InstanceStatus)
      assert.equal(legal, !transient, `${status} → ${via}`)
    }
  }
})

test('a change of its own ends in the state that the group has by then', () => {
  for (const group of GROUP_STATUSES) {
    const resting = restingInstanceStatus(group)
    assert.equal(resting, restingPairStatus(group))
    for (const busy of ['creating', 'nic-creating', 'nic-deleting', 'resizing'] as const) {
      assert.ok(INSTANCE_MOVES[busy].includes(resting), `${busy} → ${resting}`)
    }
  }
})

test('only complete instances take their NICs to the other site', () => {
  const stay = INSTANCE_STATUSES.filter((status) => !identityMoves(status))
  assert.deepEqual(stay.toSorted(), ['creating', 'deleting', 'error', 'error-deleting'])
})

test('a settled instance without a server is invalid, one without a copy of a disk is at fault', () => {
  for (const status of INSTANCE_STATUSES) {
    const settled = ['available', 'protected', 'failed-over'].includes(status)
    assert.equal(shownInstanceStatus(status, ['protected'], 2), status)
    assert.equal(shownInstanceStatus(status, ['error'], 1), settled ? 'invalid' : status)
    for (const pair of PAIR_STATUSES) {
      const ill = pair === 'error' || pair === 'fault' || pair === 'invalid'
      const shown = shownInstanceStatus(status, ['protected', pair], 2)
      assert.equal(shown, settled && ill ? 'fault' : status, `${status} with a pair in ${pair}`)
    }
  }
})

test('the DR server goes with its instance only while it is no production server', () => {
  const command = { kind: 'delete', deleteTargetServer: true } as const
  assert.deepEqual(decideInstance(facts({ station: 'target' }), command), {
    ok: false,
    refusal: 'INSTANCE_ROLES_REVERSED',
  })
  assert.equal(decideInstance(facts({}), command).ok, true)
  const kept = { kind: 'delete', deleteTargetServer: false } as const
  assert.equal(decideInstance(facts({ station: 'target' }), kept).ok, true)
})

test('a deletion waits for pairs at which something is at work', () => {
  for (const pair of PAIR_STATUSES) {
    const decision = decideInstance(facts({ ownPairs: ['available', pair] }), {
      kind: 'delete',
      deleteTargetServer: false,
    })
    const busy = !(
      ['available', 'protected', 'failed-over', 'error', 'invalid', 'fault'].includes(pair) ||
      (pair.startsWith('error-') && pair !== 'error-detaching')
    )
    assert.equal(decision.ok, !busy, pair)
    if (!decision.ok) assert.equal(decision.refusal, 'INSTANCE_PAIR_STATE')
  }
})

test('names that are made from names are names', () => {
  assert.equal(pairNameFor('web', '/dev/vda'), 'web-vda')
  assert.equal(batchName('web', 7), 'web-0007')
  assert.ok(isName(pairNameFor('x'.repeat(64), '/dev/vdz')))
  assert.ok(isName(batchName('x'.repeat(59), 20)))
})
