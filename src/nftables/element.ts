// SPDX-License-Identifier: Apache-2.0

import { ENOENT } from '#libc'
import {
  attributes,
  bytes,
  type Infer,
  list,
  mentions,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  nested,
  type Reply,
  string,
  type Transport,
  u32be,
} from '#netlink'
import { type Data, data, type Verdict, verdictData } from './data.ts'
import { type DataTypeName, decodeFields, encodeFields, type Field, formatFields } from './datatype.ts'
import {
  type Change,
  decodeAnswer,
  message,
  NFT_MSG_DELSETELEM,
  NFT_MSG_DESTROYSETELEM,
  NFT_MSG_GETSETELEM,
  NFT_MSG_NEWSETELEM,
} from './message.ts'
import { formatSet, type NamedSet } from './set.ts'
import { decodeComment, encodeComment } from './userdata.ts'

// linux/netfilter/nf_tables.h, enum nft_set_elem_list_attributes and nft_set_elem_attributes
const NFTA_SET_ELEM_LIST_TABLE = 1
const NFTA_SET_ELEM_LIST_SET = 2
const NFTA_SET_ELEM_LIST_ELEMENTS = 3
const NFTA_SET_ELEM_LIST_SET_ID = 4
const NFTA_LIST_ELEM = 1
const NFTA_SET_ELEM_KEY = 1
const NFTA_SET_ELEM_DATA = 2
const NFTA_SET_ELEM_FLAGS = 3
const NFTA_SET_ELEM_USERDATA = 6
const NFTA_SET_ELEM_KEY_END = 10
const NFT_SET_ELEM_INTERVAL_END = 1

const elementAttributes = nested(
  attributes({
    flags: [NFTA_SET_ELEM_FLAGS, u32be],
    key: [NFTA_SET_ELEM_KEY, data],
    keyEnd: [NFTA_SET_ELEM_KEY_END, data],
    data: [NFTA_SET_ELEM_DATA, data],
    userdata: [NFTA_SET_ELEM_USERDATA, bytes],
  }),
)
type ElementAttributes = Infer<typeof elementAttributes>

const placeOfElements = {
  table: [NFTA_SET_ELEM_LIST_TABLE, string()],
  set: [NFTA_SET_ELEM_LIST_SET, string()],
  setId: [NFTA_SET_ELEM_LIST_SET_ID, u32be],
} as const
export const elementListAttributes = attributes({
  ...placeOfElements,
  elements: [NFTA_SET_ELEM_LIST_ELEMENTS, nested(list(NFTA_LIST_ELEM, elementAttributes))],
})
/** The same with elements as the kernel wrote them. */
const rawElementListAttributes = attributes({
  ...placeOfElements,
  elements: [NFTA_SET_ELEM_LIST_ELEMENTS, nested(list(NFTA_LIST_ELEM, bytes))],
})

/** An element of a set or map. */
export type Element = {
  readonly key: readonly Field[]
  /**
   * For interval sets: where the range ends. With one field it is the first value **after** the range and may be left
   * out where the family ends; with several fields it is each field's last value.
   */
  readonly end?: readonly Field[]
  /** What a map holds at this key. */
  readonly value?: readonly Field[] | Verdict
  /** Kept by the kernel with the element, shown by `nft`; never compared. At most 127 bytes. */
  readonly comment?: string
}

/** An element and where it stands. */
export type ElementOf = { readonly set: NamedSet; readonly element: Element }

export const formatElement = (set: NamedSet, element: Element): string =>
  `element ${formatFields(element.key)} of ${formatSet(set)}`

/**
 * Adds one element; success where it is there already, EBUSY where a map holds another value at the key. `exclusive`:
 * EEXIST where the key is there, whatever it holds.
 */
export const addElement = (set: NamedSet, element: Element, options: { exclusive?: boolean } = {}): Change =>
  change(NFT_MSG_NEWSETELEM, 'add', set, element, NLM_F_CREATE | (options.exclusive ? NLM_F_EXCL : 0))

/** Removes one element. ENOENT where it, or the set, is not there. */
export const deleteElement = (set: NamedSet, element: Element): Change =>
  change(NFT_MSG_DELSETELEM, 'delete', set, element, 0)

/** An attribute holds 64 KiB; two addresses, names and a comment make 250 bytes. */
const ELEMENTS_PER_CHANGE = 200

/** As `addElement` for many elements, which share messages: a refusal may name the set instead of the element. */
export const addElements = (elements: readonly ElementOf[], options: { exclusive?: boolean } = {}): Change[] =>
  inGroups(elements).map(({ set, group }) =>
    change(NFT_MSG_NEWSETELEM, 'add', set, group, NLM_F_CREATE | (options.exclusive ? NLM_F_EXCL : 0)),
  )

/** Removes those that are there; the sets must exist. Linux 6.3, older kernels say EINVAL. */
export const destroyElements = (elements: readonly ElementOf[]): Change[] =>
  inGroups(elements).map(({ set, group }) => change(NFT_MSG_DESTROYSETELEM, 'delete', set, group, 0))

function inGroups(elements: readonly ElementOf[]): { set: NamedSet; group: Element[] }[] {
  const groups: { set: NamedSet; group: Element[] }[] = []
  const open = new Map<string, Element[]>()
  for (const { set, element } of elements) {
    const name = formatSet(set)
    let group = open.get(name)
    if (group === undefined || group.length === ELEMENTS_PER_CHANGE) {
      group = []
      open.set(name, group)
      groups.push({ set, group })
    }
    group.push(element)
  }
  return groups
}

function change(type: number, verb: string, set: NamedSet, what: Element | readonly Element[], flags: number): Change {
  const elements = 'key' in what ? [what] : what
  const values = {
    table: set.table.name,
    set: set.name,
    elements: elements.flatMap(element => encodeElement(set, element)),
  }
  const object =
    elements.length === 1 ? formatElement(set, elements[0]!) : `${elements.length} elements of ${formatSet(set)}`
  return message(type, set.table.family, elementListAttributes, values, { verb, object, flags })
}

/** A range of one field is two elements of the kernel, the second flagged as its end. */
function encodeElement(set: NamedSet, element: Element): ElementAttributes[] {
  const key = { value: encodeFields(set.key, element.key) }
  const value = {
    ...(element.value === undefined ? {} : { data: encodeValue(set, element.value) }),
    ...(element.comment === undefined ? {} : { userdata: encodeComment(element.comment) }),
  }
  if (element.end === undefined) return [{ key, ...value }]
  const end = { value: encodeFields(set.key, element.end) }
  if (set.key.length > 1) return [{ key, keyEnd: end, ...value }]
  return [
    { key, ...value },
    { flags: NFT_SET_ELEM_INTERVAL_END, key: end },
  ]
}

function encodeValue(set: NamedSet, value: readonly Field[] | Verdict): Data {
  if (!Array.isArray(value)) return verdictData(value as Verdict)
  if (set.data === undefined || set.data === 'verdict')
    throw new TypeError(`Cannot encode a value for ${formatSet(set)}: it holds none`)
  return { value: encodeFields(set.data, value) }
}

/**
 * The keys of a set without ranges.
 * @returns undefined where there is no such set. @throws {NetlinkError}
 */
export const listKeys = (
  transport: Transport,
  set: NamedSet,
  options?: ListOptions,
): (readonly Field[])[] | undefined => listElements(transport, set, options)?.map(({ key }) => key)

export type ListOptions = {
  /**
   * Look only for elements whose key or comment has one of these texts, as a part of another text as well. The others are not
   * decoded: a thousand elements take 1 ms instead of 30.
   */
  readonly mentioning?: readonly string[]
}

/**
 * The elements of a set or map without ranges and verdicts.
 * @returns undefined where there is no such set. @throws {NetlinkError}
 */
export function listElements(
  transport: Transport,
  set: NamedSet,
  { mentioning }: ListOptions = {},
): Element[] | undefined {
  const dump = message(
    NFT_MSG_GETSETELEM,
    set.table.family,
    elementListAttributes,
    { table: set.table.name, set: set.name },
    { verb: 'list', object: `elements of ${formatSet(set)}`, flags: NLM_F_DUMP, tolerate: [ENOENT] },
  )
  const reply = transport.execute([dump])[0]!
  if (reply.tolerated !== undefined) return undefined
  if (mentioning === undefined) return reply.messages.flatMap(answer => decodeElements(set, answer.body))
  return reply.messages
    .filter(({ body }) => mentions(body, mentioning))
    .flatMap(({ body }) => decodeAnswer(body, rawElementListAttributes).values.elements ?? [])
    .filter(element => mentions(element, mentioning))
    .map(element => decodeElement(set, elementAttributes.decode(element)))
}

const decodeElements = (set: NamedSet, body: Uint8Array): Element[] =>
  (decodeAnswer(body, elementListAttributes).values.elements ?? []).map(element => decodeElement(set, element))

function decodeElement(set: NamedSet, { key, data, userdata }: ElementAttributes): Element {
  const comment = decodeComment(userdata)
  const holdsFields = Array.isArray(set.data) && data?.value !== undefined
  return {
    key: decodeFields(set.key, key?.value ?? new Uint8Array(0)),
    ...(holdsFields ? { value: decodeFields(set.data as readonly DataTypeName[], data.value!) } : {}),
    ...(comment === undefined ? {} : { comment }),
  }
}

/** Whether each of the elements is there, in order; false as well where its set is not. @throws {NetlinkError} */
export const hasElements = (transport: Transport, elements: readonly ElementOf[]): boolean[] =>
  getElements(transport, elements).map(reply => reply.tolerated === undefined)

/** What stands at the keys of the elements, in order; undefined where nothing does. @throws {NetlinkError} */
export const readElements = (transport: Transport, elements: readonly ElementOf[]): (Element | undefined)[] =>
  getElements(transport, elements).map(
    (reply, index) => reply.messages.flatMap(answer => decodeElements(elements[index]!.set, answer.body))[0],
  )

/** The answers to one send must find room in the socket's buffer, two packets for each. */
const ELEMENTS_PER_SEND = 500

function getElements(transport: Transport, elements: readonly ElementOf[]): Reply[] {
  const requests = elements.map(({ set, element: { value: _value, comment: _comment, ...place } }) => ({
    ...change(NFT_MSG_GETSETELEM, 'read', set, place, NLM_F_ACK),
    tolerate: [ENOENT],
  }))
  const replies: Reply[] = []
  for (let from = 0; from < requests.length; from += ELEMENTS_PER_SEND)
    replies.push(...transport.execute(requests.slice(from, from + ELEMENTS_PER_SEND)))
  return replies
}
