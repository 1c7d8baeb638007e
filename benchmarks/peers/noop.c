/* Responsible for the smallest program: it starts and ends. */
int main(void)
{
    return 0;
}
