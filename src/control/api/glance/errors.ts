import { Refusal } from '../http/refusal.ts'

/* This service has no codes of its own: the number is the HTTP status, the title its name. */

const TITLES: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  413: 'Request Entity Too Large',
  429: 'Too Many Requests',
  500: 'Internal Server Error',
  503: 'Service Unavailable',
}

export const statusTitle = (status: number): string => TITLES[status] ?? 'Error'

export const refuse = (status: 400 | 404, message: string): Refusal =>
  new Refusal(status, statusTitle(status), message)

export const errorBody = ({ status, message }: Pick<Refusal, 'status' | 'message'>) => ({
  code: status,
  message,
  title: statusTitle(status),
})
