// SPDX-License-Identifier: Apache-2.0
import { type Answer, asObject, type Call, type RouteTable } from '../call.ts'
import { Fault } from '../fault.ts'
import { list, put, remove, type State, type SubPort, type Trunk } from '../state.ts'
import { type Attributes, boolean, decodeMember, python, standardAttributes, uuid } from './attribute.ts'
import { portKind } from './port.ts'
import { demandQuota } from './quota.ts'
import { bump, checkIfMatch, get, index, type Kind, newRow, show, standardView } from './resource.ts'

const attributes: Attributes = {
  ...standardAttributes,
  port_id: { post: true, required: true, convert: uuid },
  admin_state_up: { post: true, put: true, convert: boolean },
  sub_ports: { post: true },
}

export const trunkKind: Kind<'trunks'> = {
  rows: 'trunks',
  collection: 'trunks',
  member: 'trunk',
  notFound: id => new Fault(404, 'TrunkNotFound', `Trunk ${id} could not be found.`),
  view: (_call, row) => trunkView(row),
}

const trunkView = (row: Trunk) => ({
  ...standardView(row),
  name: row.name,
  admin_state_up: row.admin_state_up,
  port_id: row.port_id,
  status: row.status,
  sub_ports: row.sub_ports,
})

/** The sub-ports of a body, each with its segmentation. */
function decodeSubPorts(call: Call, value: unknown): SubPort[] {
  const entries = Array.isArray(value) ? value : []
  return entries.map((entry): SubPort => {
    const { port_id: portId, segmentation_type: type, segmentation_id: id } = asObject(entry) ?? {}
    if (typeof type !== 'string' || typeof id !== 'number') {
      throw new Fault(
        400,
        'InvalidInput',
        `Invalid input for operation: Invalid subport details '${python(entry)}': missing segmentation information. Must specify both segmentation_id and segmentation_type.`,
      )
    }
    return { port_id: get(call, portKind, String(portId)).id, segmentation_type: type, segmentation_id: id }
  })
}

function demandNoSubPort(state: State, portId: string): void {
  if (list(state, 'trunks').some(trunk => trunk.sub_ports.some(sub => sub.port_id === portId))) {
    throw new Fault(409, 'TrunkPortInUse', `Port ${portId} is in use by another trunk.`)
  }
}

function addTo(call: Call, trunk: Trunk, added: readonly SubPort[]): Trunk {
  const subPorts = [...trunk.sub_ports]
  for (const sub of added) {
    demandNoSubPort(call.state, sub.port_id)
    const isTaken = subPorts.some(
      other => other.segmentation_type === sub.segmentation_type && other.segmentation_id === sub.segmentation_id,
    )
    if (isTaken) {
      throw new Fault(
        409,
        'DuplicateSubPort',
        `segmentation_type ${sub.segmentation_type} and segmentation_id ${sub.segmentation_id} already in use on trunk ${trunk.id}.`,
      )
    }
    subPorts.push(sub)
  }
  return { ...trunk, sub_ports: subPorts }
}

function create(call: Call): Answer {
  const values = decodeMember(call, 'trunk', attributes)
  const parent = get(call, portKind, String(values['port_id']))
  demandNoSubPort(call.state, parent.id)
  if (list(call.state, 'trunks').some(trunk => trunk.port_id === parent.id)) {
    throw new Fault(
      409,
      'ParentPortInUse',
      `Port ${parent.id} is currently in use and is not eligible for use as a parent port.`,
    )
  }
  const row = newRow(call, values, 0)
  demandQuota(call.state, row.project_id, 'trunk', 1)
  const bare: Trunk = {
    ...row,
    admin_state_up: (values['admin_state_up'] as boolean | undefined) ?? true,
    port_id: parent.id,
    status: 'DOWN',
    sub_ports: [],
  }
  const trunk = put(call.state, 'trunks', addTo(call, bare, decodeSubPorts(call, values['sub_ports'])))
  return { status: 201, body: { trunk: trunkView(trunk) } }
}

function update(call: Call): Answer {
  const values = decodeMember(call, 'trunk', attributes)
  const row = get(call, trunkKind, call.parameters['id'] ?? '')
  checkIfMatch(call, row)
  const trunk = put(call.state, 'trunks', bump({ ...row, ...values } as Trunk))
  return { status: 200, body: { trunk: trunkView(trunk) } }
}

/** The answers of both are the trunk itself, without a key around it. */
function addSubPorts(call: Call): Answer {
  const row = get(call, trunkKind, call.parameters['id'] ?? '')
  const added = decodeSubPorts(call, asObject(call.body)?.['sub_ports'])
  return { status: 200, body: trunkView(put(call.state, 'trunks', bump(addTo(call, row, added)))) }
}

function removeSubPorts(call: Call): Answer {
  const row = get(call, trunkKind, call.parameters['id'] ?? '')
  const wanted = asObject(call.body)?.['sub_ports']
  let left = row.sub_ports
  for (const entry of Array.isArray(wanted) ? wanted : []) {
    const id = asObject(entry)?.['port_id']
    if (!left.some(sub => sub.port_id === id)) {
      throw new Fault(404, 'SubPortNotFound', `SubPort ${String(id)} on trunk ${row.id} could not be found.`)
    }
    left = left.filter(sub => sub.port_id !== id)
  }
  return { status: 200, body: trunkView(put(call.state, 'trunks', bump({ ...row, sub_ports: left }))) }
}

function destroy(call: Call): Answer {
  const row = get(call, trunkKind, call.parameters['id'] ?? '')
  checkIfMatch(call, row)
  remove(call.state, 'trunks', row.id)
  return { status: 204 }
}

export const trunkRoutes: RouteTable = [
  ['GET', '/v2.0/trunks', index(trunkKind)],
  ['POST', '/v2.0/trunks', create],
  ['GET', '/v2.0/trunks/:id', show(trunkKind)],
  ['PUT', '/v2.0/trunks/:id', update],
  ['DELETE', '/v2.0/trunks/:id', destroy],
  [
    'GET',
    '/v2.0/trunks/:id/get_subports',
    call => ({ status: 200, body: { sub_ports: get(call, trunkKind, call.parameters['id'] ?? '').sub_ports } }),
  ],
  ['PUT', '/v2.0/trunks/:id/add_subports', addSubPorts],
  ['PUT', '/v2.0/trunks/:id/remove_subports', removeSubPorts],
]
