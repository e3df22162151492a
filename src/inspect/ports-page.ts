// SPDX-License-Identifier: Apache-2.0

import { describeHolder } from './leases.ts'
import type { AddressReport, AddressUse, PortReport, PortsReport, ServerReport } from './ports.ts'

const WORDS: Readonly<Record<AddressUse, string>> = {
  primary: "the server's own",
  making: 'being made',
  reserve: 'in the reserve',
  assigned: 'assigned',
  releasing: 'on its way out',
  removing: 'on its way out',
  quarantined: 'in quarantine',
  foreign: 'not of Mooring',
  unknown: '-',
}

/** A report for a reader. What differs stands behind a `!`. */
export function formatPorts({ servers, others, faults }: PortsReport): string[] {
  const sections = [
    ...servers.map(serverLines),
    ...(others.length === 0 ? [] : [['ports of this node that no server has', ...others.flatMap(portLines)]]),
    ...(faults.length === 0 ? [] : [faults.map(faultLine)]),
  ]
  if (sections.length === 0) return ['no port']
  return sections.flatMap((lines, index) => (index === 0 ? lines : ['', ...lines]))
}

const faultLine = (text: string) => `! ${text}`

const serverLines = ({ cloud, id, name, status, ports, faults }: ServerReport): string[] => [
  `server ${name ?? '(no name)'}  ${id}  ${status ?? '-'}  cloud ${cloud}`,
  ...ports.flatMap(portLines),
  ...faults.map(faultLine),
]

function portLines(port: PortReport): string[] {
  const { id, name, status, mac, network, deviceOwner, allowedAddressPairs, securityGroups, addresses, faults } = port
  const head = [
    `  port ${id}`,
    status,
    mac,
    `network ${network.name ?? network.id}`,
    deviceOwner === '' ? 'of nothing' : deviceOwner,
    ...(name === '' ? [] : [`"${name}"`]),
    ...(port.portSecurity === false ? ['no port security'] : []),
  ]
  const width = Math.max(...addresses.map(({ address }) => address.length))
  return [
    head.join('  '),
    ...(port.isMarked && port.description !== '' ? [`    ${port.description}`] : []),
    ...(securityGroups.length === 0 ? [] : [`    security groups ${securityGroups.join(' ')}`]),
    ...(allowedAddressPairs.length === 0
      ? []
      : [`    allowed pairs ${allowedAddressPairs.map(({ ip_address }) => ip_address).join(' ')}`]),
    ...addresses.map(address => `    ${address.address.padEnd(width)}  ${addressWords(address)}`),
    ...faults.map(faultLine),
  ]
}

function addressWords({ use, holder, floatingIp }: AddressReport): string {
  const whose = holder === null ? WORDS[use] : describeHolder(holder)
  return floatingIp === null ? whose : `${whose}, floating IP ${floatingIp}`
}
