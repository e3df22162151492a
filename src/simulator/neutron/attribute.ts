// SPDX-License-Identifier: Apache-2.0

/** What may stand in the body of a POST or PUT, per attribute, and how Neutron refuses the rest. */
import { tryParseIp, tryParseMac, tryParsePrefix } from '#base'
import { asObject, type Call, isAdmin, notJson } from '../call.ts'
import { badRequest, Fault, invalidInput, notAuthorized } from '../fault.ts'

/** Converts the value, or throws the fault. */
export type Convert = (value: unknown, name: string) => unknown

export type Attribute = {
  /** Where it may be given; read-only attributes have neither. */
  readonly post?: boolean
  readonly put?: boolean
  readonly required?: boolean
  /** Where only an administrator may give it. */
  readonly adminPost?: boolean
  readonly adminPut?: boolean
  readonly convert?: Convert
}
export type Attributes = Readonly<Record<string, Attribute>>

const STRING_MAX = 255

/** A value as Python prints it in Neutron's messages. */
export function python(value: unknown): string {
  if (value === null || value === undefined) return 'None'
  if (value === true) return 'True'
  if (value === false) return 'False'
  if (typeof value === 'string') return `'${value}'`
  if (Array.isArray(value)) return `[${value.map(python).join(', ')}]`
  if (typeof value === 'object') {
    const entries = Object.entries(value as object).map(([key, entry]) => `'${key}': ${python(entry)}`)
    return `{${entries.join(', ')}}`
  }
  return String(value)
}

export const string: Convert = (value, name) => {
  if (typeof value !== 'string') throw invalidInput(name, `'${plain(value)}' is not a valid string`)
  if (value.length > STRING_MAX) throw invalidInput(name, `'${value}' exceeds maximum length of ${STRING_MAX}`)
  return value
}
const plain = (value: unknown): string => (typeof value === 'string' ? value : python(value))

export const boolean: Convert = value => {
  if (typeof value === 'boolean') return value
  if (value === 'true' || value === 'True' || value === '1' || value === 1) return true
  if (value === 'false' || value === 'False' || value === '0' || value === 0) return false
  throw new Fault(400, 'InvalidInput', `Invalid input for operation: '${plain(value)}' cannot be converted to boolean.`)
}

const UUID = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i
export const isUuid = (value: unknown): value is string => typeof value === 'string' && UUID.test(value)

export const uuid: Convert = (value, name) => {
  if (!isUuid(value)) throw invalidInput(name, `'${plain(value)}' is not a valid UUID`)
  return value
}
export const uuidOrNull: Convert = (value, name) => (value === null ? null : uuid(value, name))

export const uuids: Convert = (value, name) => {
  if (!Array.isArray(value)) throw invalidInput(name, `'${plain(value)}' is not a list`)
  return value.map(entry => uuid(entry, name))
}

export const mac: Convert = (value, name) => {
  if (typeof value !== 'string' || tryParseMac(value) === undefined) {
    throw invalidInput(name, `'${plain(value)}' is not a valid MAC address`)
  }
  return value
}

export const ipOrNull: Convert = (value, name) => {
  if (value === null) return null
  if (typeof value !== 'string' || tryParseIp(value) === undefined) {
    throw invalidInput(name, `'${plain(value)}' is not a valid IP address`)
  }
  return value
}

export const cidr: Convert = (value, name) => {
  if (typeof value !== 'string' || tryParsePrefix(value) === undefined) {
    throw invalidInput(name, `'${plain(value)}' is not a valid IP subnet`)
  }
  return value
}

/** Attributes that every resource has and nobody writes. */
export const standardAttributes: Attributes = {
  id: {},
  status: {},
  revision_number: {},
  created_at: {},
  updated_at: {},
  tags: { post: true },
  name: { post: true, put: true, convert: string },
  description: { post: true, put: true, convert: string },
  project_id: { post: true },
  tenant_id: { post: true },
}

type Values = Readonly<Record<string, unknown>>

/** The member of the body (`{"port": {...}}`), checked and converted. Policy comes last, as in Neutron. */
export function decodeMember(call: Call, member: string, attributes: Attributes): Values {
  if (call.body === notJson) throw badRequest('Body contains invalid data')
  const values = asObject(asObject(call.body)?.[member])
  if (values === undefined) throw badRequest(`Unable to find '${member}' in request body`)
  return decodeValues(call, member, attributes, values)
}

/** The members of a bulk body (`{"ports": [...]}`), or undefined if it is not one. */
export function decodeBulk(
  call: Call,
  member: string,
  collection: string,
  attributes: Attributes,
): Values[] | undefined {
  const rows = asObject(call.body)?.[collection]
  if (!Array.isArray(rows)) return undefined
  if (rows.length === 0) throw badRequest('Resources required')
  return rows.map(row => decodeValues(call, member, attributes, asObject(row) ?? {}))
}

function decodeValues(call: Call, member: string, attributes: Attributes, values: Values): Values {
  const verb = call.method === 'POST' ? 'post' : 'put'
  const unknown = Object.keys(values).filter(name => attributes[name] === undefined)
  if (unknown.length > 0) throw badRequest(`Unrecognized attribute(s) '${unknown.join(', ')}'`)
  for (const [name, attribute] of Object.entries(attributes)) {
    if (verb === 'post' && attribute.required === true && values[name] === undefined) {
      throw badRequest(`Failed to parse request. Required attribute '${name}' not specified`)
    }
    if (values[name] === undefined || attribute[verb] === true) continue
    throw badRequest(
      verb === 'post' ? `Attribute '${name}' not allowed in POST` : `Cannot update read-only attribute ${name}`,
    )
  }
  const converted: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(values)) {
    converted[name] = attributes[name]?.convert?.(value, name) ?? value
  }
  checkPolicy(call, member, attributes, converted)
  return converted
}

function checkPolicy(call: Call, member: string, attributes: Attributes, values: Values): void {
  if (isAdmin(call)) return
  const action = `${call.method === 'POST' ? 'create' : 'update'}_${member}`
  for (const name of Object.keys(values)) {
    const attribute = attributes[name]
    if (call.method === 'POST' ? attribute?.adminPost : attribute?.adminPut) {
      throw notAuthorized(`(rule:${action} and rule:${action}:${name})`)
    }
  }
}
